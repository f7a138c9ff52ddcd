"""Whatever a detector raises becomes an error with culprit and remedy, and the first one counts."""

from __future__ import annotations

import pytest
from bluesky.utils import FailedStatus

from beamline_ml.acquisition.failure import Explained, explain
from beamline_ml.errors import AcquisitionError, FileMissing


class Disconnected(Exception):
    __module__ = "aioca._catools"


def failed(reason: Exception) -> FailedStatus:
    """As bluesky raises it."""
    status = FailedStatus("<AsyncStatus, device: det, task: <coroutine ...>>")
    status.__cause__ = reason
    return status


@pytest.mark.parametrize(
    ("error", "culprit", "remedy"),
    [
        (
            failed(FileNotFoundError("Path /x/ doesn't exist")),
            "The IOC of det cannot write there: Path /x/",
            "Make that",
        ),
        (TimeoutError("ca://X:HDF1:FlushNow"), r"stopped answering.*\(ca://X:HDF1:FlushNow\)", "whether its IOC runs"),
        (failed(ValueError("Trigger type EDGE not supported")), "det failed: Trigger type EDGE", "Look at its IOC"),
        (Disconnected("X: Virtual circuit disconnect"), "stopped answering", "whether its IOC runs"),
        (failed(RuntimeError()), "det failed: RuntimeError", "Look at its IOC"),
    ],
    ids=["folder", "silence", "refusal", "connection", "no words"],
)
def test_culprit_and_remedy(error: Exception, culprit: str, remedy: str) -> None:
    with pytest.raises(AcquisitionError, match=culprit) as failure, Explained("det"):
        raise error
    assert failure.value.__cause__ is error
    assert remedy in failure.value.remedy


def test_our_own_errors_come_through_as_they_are() -> None:
    reason = FileMissing("There is no movie.", "Check the path.")
    assert explain(failed(reason), "det") is reason


def test_no_error_is_its_own_cause() -> None:
    with pytest.raises(FileMissing) as failure, Explained("det"):
        raise failed(FileMissing("There is no movie.", "Check the path."))
    assert failure.value.__cause__ is None


def fail_twice() -> None:
    explained = Explained("det")
    with explained:
        try:
            with explained:
                raise TimeoutError("first")
        except AcquisitionError:
            raise failed(TimeoutError("while it was being put away")) from None


def test_the_first_failure_counts() -> None:
    with pytest.raises(AcquisitionError, match="first"):
        fail_twice()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), KeyError("a mistake in a plan")])
def test_what_does_not_come_from_the_detector_is_left_alone(error: BaseException) -> None:
    with pytest.raises(type(error)), Explained("det"):
        raise error
