"""Submit the automatic fits that are missing to a worker; the watcher does the same for itself, in process."""

from __future__ import annotations

import time
from contextlib import closing

from beamline_ml.service.catalogue import Catalogue
from beamline_ml.service.executor import AUTOMATIC, MOST_ATTEMPTS, attempt_key
from beamline_ml.service.prefect_api import PrefectApi
from beamline_ml.service.trigger import scan_tag
from beamline_ml.settings import Settings

_DAY_S = 86_400.0


def submit_missing_fits(settings: Settings, days: float) -> list[str]:
    """Ask for a fit of every finished XPCS run of the last ``days`` days that has no outcome and none under way.

    Returns
    -------
    list of str
        Uids of the runs submitted. Asking twice for the same attempt gives the same flow run.

    Raises
    ------
    ServiceError
        When Prefect does not answer.
    """
    with closing(Catalogue(settings)) as catalogue:
        outcomes = catalogue.outcomes()
        missing = [uid for uid in catalogue.finished_runs(time.time() - days * _DAY_S) if uid not in outcomes]
    with closing(PrefectApi(settings.prefect)) as api:
        return [uid for uid in missing if _submit(api, settings.prefect.deployment, uid)]


def _submit(api: PrefectApi, deployment: str, uid: str) -> bool:
    earlier = api.flow_runs(AUTOMATIC, scan_tag(uid))
    if len(earlier) >= MOST_ATTEMPTS or not all(run.is_over for run in earlier):
        return False
    api.create_flow_run(
        deployment,
        {"run_uid": uid},
        tags=(AUTOMATIC, scan_tag(uid)),
        idempotency_key=attempt_key(uid, len(earlier) + 1),
    )
    return True
