"""Flow ``xpcs-fit``: from a run in tiled to a fitted, forecast result in tiled.

Heavy imports happen inside the tasks, so that a worker's new interpreter reaches the flow quickly. Arrays are handed on
in memory and never stored or hashed by Prefect.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from beamline_ml.errors import BeamlineMLError, ServiceError


@task(cache_policy=NO_CACHE)
def look_up(publication: Any, run_uid: str) -> Any:
    """Find the run and check what it says about itself."""
    from beamline_ml.service import analysis as steps

    return steps.look_up(publication.raw, run_uid, publication.analysis, publication.settings.metadata)


@task(cache_policy=NO_CACHE)
def correlate(subject: Any, settings: Any, analysis: Any) -> Any:
    """Read the frames; two-time functions, g2 and relaxation times."""
    from beamline_ml.service import analysis as steps

    qmap = steps.choose_qmap(subject, analysis)
    with steps.read_frames(subject, settings) as reader:
        return steps.correlate(subject, reader, qmap, analysis.normalization)


@task(cache_policy=NO_CACHE)
def explain(subject: Any, correlated: Any, analysis: Any) -> Any:
    """Fit the neural ODE and extrapolate past the end of the run."""
    from beamline_ml.service import analysis as steps

    return steps.explain(subject, correlated, analysis)


@task(cache_policy=NO_CACHE)
def publish(draft: Any, content: Any) -> Any:
    """Write the rest of the result, visible only when it is complete."""
    return draft.complete(content)


@flow(name="xpcs-fit", validate_parameters=True)
def xpcs_fit(
    run_uid: str | int,
    qmap: str | None = None,
    mask: str | None = None,
    first_frame: int | None = None,
    last_frame: int | None = None,
    n_q: int | None = None,
    normalization: str | None = None,
    model: str | None = None,
) -> str:
    """Correlate, fit and forecast one run, and return the key of its result in tiled.

    Parameters
    ----------
    run_uid
        Uid of the run, the first characters of it, its scan id, or -1 for the latest run. A number, because
        ``prefect deployment run --param run_uid=1`` sends one.
    qmap, mask
        Files to use instead of rings from the run's geometry.
    first_frame, last_frame
        Frames to use, the last one excluded.
    n_q, normalization, model
        Instead of the profile's settings. Other settings give another result beside the first; the same ones give the
        same result, without computing it again.
    """
    from beamline_ml.service.reporting import Publication

    asked = {
        "qmap": qmap,
        "mask": mask,
        "first_frame": first_frame,
        "last_frame": last_frame,
        "n_q": n_q,
        "normalization": normalization,
        "model": model,
    }
    with closing(Publication.open(asked, str(flow_run.get_id() or ""))) as publication:
        try:
            return _analyse(publication, str(run_uid))
        except ServiceError:
            raise  # passes by itself, and says nothing about the run
        except BeamlineMLError as refusal:
            get_run_logger().error("%s", refusal)
            publication.record_failure(str(run_uid), refusal)
            raise


def _analyse(publication: Any, run_uid: str) -> str:
    timings_s: dict[str, float] = {}
    with timed(timings_s, "look_up"):
        subject = look_up(publication, run_uid)
    existing = publication.find(subject)
    if existing is not None:
        return _told(publication, subject, existing)
    with timed(timings_s, "correlate"):
        correlated = correlate(subject, publication.settings, publication.analysis)
    # The correlations are written while the dynamics are being fitted.
    with publication.drafted(subject, correlated) as draft:
        if draft.existing is not None:
            return _told(publication, subject, draft.existing)
        with timed(timings_s, "fit"):
            explained = explain(subject, correlated, publication.analysis)
        result = publish(draft, publication.content(subject, correlated, explained, timings_s))
    return _told(publication, subject, result)


def _told(publication: Any, subject: Any, result: Any) -> str:
    """Say in Prefect what this flow run found, or found there already; the key of the result."""
    key = str(result.key)
    create_markdown_artifact(publication.markdown(result), key=publication.artifact_key(subject), description=key)
    return key


class timed:  # noqa: N801 - reads as a phrase: with timed(timings_s, "fit")
    """Write down how many seconds the block took."""

    def __init__(self, timings_s: dict[str, float], name: str) -> None:
        self._timings_s, self._name = timings_s, name

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._timings_s[self._name] = round(time.monotonic() - self._began, 3)
