"""Say in the words of a beamline why a burst failed, instead of naming a coroutine."""

from __future__ import annotations

from types import TracebackType

from bluesky.utils import FailedStatus

from beamline_ml.errors import AcquisitionError, BeamlineMLError

_CLIENTS = ("aioca", "epicscorelibs", "p4p")
"""EPICS clients, which are not everywhere; each raises errors of its own when a connection breaks."""


class Explained:
    """Context that turns what a detector raises into an error with culprit and remedy.

    It may be entered more than once, one inside the other: the first failure counts, because a detector that is gone
    fails again while it is being put away.

    Parameters
    ----------
    detector
        Name of the detector.
    """

    def __init__(self, detector: str) -> None:
        self._detector = detector
        self._first: BeamlineMLError | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and _is_of_detector(error):
            self._first = self._first or explain(error, self._detector)
            # An error that is the cause of this one must not get it as its own cause: the chain would be a ring.
            raise self._first from (None if self._first is error.__cause__ else error)


def _is_of_detector(error: BaseException) -> bool:
    return isinstance(error, FailedStatus) or _is_silence(error)


def _is_silence(error: BaseException) -> bool:
    """Whether an answer did not come in time, or the connection broke while it was waited for."""
    return isinstance(error, TimeoutError) or type(error).__module__.partition(".")[0] in _CLIENTS


def explain(error: BaseException, detector: str) -> BeamlineMLError:
    """The error to show for one that a detector of ophyd-async raised while it took a burst.

    Parameters
    ----------
    error
        As bluesky raises it; the reason may stand in its ``__cause__``.
    detector
        Name of the detector.
    """
    reason = error.__cause__ or error if isinstance(error, FailedStatus) else error
    if isinstance(reason, BeamlineMLError):
        return reason
    if isinstance(reason, FileNotFoundError):
        return AcquisitionError(
            f"The IOC of {detector} cannot write there: {reason}",
            "Make that folder on the IOC's machine and give the IOC the right to write to it, or name another folder "
            "in the profile.",
        )
    if _is_silence(reason):
        return AcquisitionError(
            f"{detector} stopped answering, or delivered no more frames ({reason}).",
            "Look whether its IOC runs, and whether its file writer dropped frames; those written are kept. Then take "
            "the burst again.",
        )
    return AcquisitionError(
        f"{detector} failed: {str(reason) or type(reason).__name__}.", "Look at its IOC, then take the burst again."
    )
