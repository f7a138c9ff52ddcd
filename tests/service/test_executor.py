"""Attempts at an automatic fit, against a real Prefect server: who died is buried, who is alive is left alone."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from beamline_ml.errors import MetadataMissing, ServiceError
from beamline_ml.service.executor import (
    AUTOMATIC,
    EXECUTED_BY_WATCHER,
    MOST_ATTEMPTS,
    AutomaticFit,
    GivenUp,
    attempt_key,
)
from beamline_ml.service.prefect_api import PrefectApi
from beamline_ml.service.trigger import scan_tag
from beamline_ml.settings import PrefectSettings

DEPLOYMENT = "xpcs-fit/beamline"


@pytest.fixture
def api(stack: Any) -> Iterator[PrefectApi]:
    with closing(PrefectApi(stack.settings.prefect)) as api:
        yield api


@pytest.fixture
def uid() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def fit(stack: Any) -> Iterator[Callable[[Callable[[str], Any]], AutomaticFit]]:
    from prefect import flow

    with ExitStack() as until_the_end:

        def of(body: Callable[[str], Any]) -> AutomaticFit:
            def xpcs_fit(run_uid: str) -> Any:
                return body(run_uid)

            made = AutomaticFit(stack.settings.prefect, flow(name="xpcs-fit")(xpcs_fit))
            return until_the_end.enter_context(closing(made))

        yield of


def left(api: PrefectApi, uid: str, state: str, *tags: str, number: int = 1) -> str:
    """A flow run that somebody has left in a state."""
    tags = (AUTOMATIC, scan_tag(uid), *tags)
    run = api.create_flow_run(DEPLOYMENT, {"run_uid": uid}, "PENDING", tags, attempt_key(uid, number))
    if state != "PENDING":
        api.set_state(run.id, state, "left so")
    return run.id


def states(api: PrefectApi, uid: str) -> list[str]:
    return [run.state for run in api.flow_runs(scan_tag(uid))]


def test_an_attempt_runs_here_under_the_deployment(fit: Any, api: PrefectApi, uid: str) -> None:
    seen: list[str] = []
    attempt = fit(seen.append).attempt(uid)
    assert seen == [uid]
    assert attempt is not None
    assert (attempt.number, attempt.error) == (1, None)
    assert states(api, uid) == ["COMPLETED"]


def test_what_the_flow_refuses_is_handed_over(fit: Any, api: PrefectApi, uid: str) -> None:
    def refuse(run_uid: str) -> None:
        raise MetadataMissing("Scan 7 has no beam centre.", "Set it.")

    attempt = fit(refuse).attempt(uid)
    assert isinstance(attempt.error, MetadataMissing)
    assert attempt.error.remedy == "Set it."
    assert states(api, uid) == ["FAILED"]


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_an_attempt_whose_process_died_is_buried_and_made_again(
    fit: Any, api: PrefectApi, uid: str, state: str
) -> None:
    left(api, uid, state, EXECUTED_BY_WATCHER)
    attempt = fit(len).attempt(uid)
    assert attempt.number == 2
    assert states(api, uid) == ["CRASHED", "COMPLETED"]


def test_orphans_are_buried_although_their_result_is_there(fit: Any, api: PrefectApi, uid: str) -> None:
    left(api, uid, "RUNNING", EXECUTED_BY_WATCHER)
    fit(len).bury_orphans()
    assert states(api, uid) == ["CRASHED"]


def test_a_worker_at_work_is_left_alone(fit: Any, api: PrefectApi, uid: str) -> None:
    run_id = left(api, uid, "RUNNING")
    assert fit(len).attempt(uid) is None
    assert states(api, uid) == ["RUNNING"]
    api.set_state(run_id, "CANCELLED", "end of the test")


def test_a_run_that_crashes_every_time_is_given_up(fit: Any, api: PrefectApi, uid: str) -> None:
    for number in range(1, MOST_ATTEMPTS + 1):
        left(api, uid, "CRASHED", EXECUTED_BY_WATCHER, number=number)
    with pytest.raises(GivenUp, match=f"{MOST_ATTEMPTS} attempts.*left so") as refusal:
        fit(len).attempt(uid)
    assert f"beamline-ml fit {uid[:8]}" in refusal.value.remedy
    assert len(states(api, uid)) == MOST_ATTEMPTS


def test_what_a_person_cancelled_is_not_started_again(fit: Any, api: PrefectApi, uid: str) -> None:
    left(api, uid, "CANCELLED", EXECUTED_BY_WATCHER)
    with pytest.raises(GivenUp, match="cancelled"):
        fit(len).attempt(uid)


def test_with_prefect_down_nothing_is_lost(uid: str) -> None:
    down = PrefectSettings(api_url="http://127.0.0.1:9/api")
    with closing(AutomaticFit(down, len)) as fit, pytest.raises(ServiceError, match="does not answer"):
        fit.attempt(uid)


def test_a_deployment_that_is_missing_is_named(stack: Any, uid: str) -> None:
    settings = stack.settings.prefect.model_copy(update={"deployment": "nobody/beamline"})
    with closing(AutomaticFit(settings, len)) as fit, pytest.raises(ServiceError, match=r"nobody/beamline.*404"):
        fit.attempt(uid)
