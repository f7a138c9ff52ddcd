"""One exception tree. Every message names the culprit and the remedy.

A beamline scientist reads these at 3 a.m. in a Prefect log or from ``beamline-ml show``, so ``culprit`` says what is
wrong in terms of their run and ``remedy`` says what to do next.
"""

from __future__ import annotations


class BeamlineMLError(Exception):
    """Something beamline-ml refuses to do, or could not do, with the reason.

    Parameters
    ----------
    culprit
        What is wrong, named: the run, file, field or service.
    remedy
        What the reader can do about it.
    """

    def __init__(self, culprit: str, remedy: str) -> None:
        super().__init__(f"{culprit} {remedy}")
        self.culprit = culprit
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[BeamlineMLError], tuple[str, str]]:
        return type(self), (self.culprit, self.remedy)


class SettingsError(BeamlineMLError):
    """A profile, environment variable or argument does not make sense."""


class AcquisitionError(BeamlineMLError):
    """A burst cannot be taken as asked."""


class RunError(BeamlineMLError):
    """A run cannot be analysed as it stands in tiled."""


class RunNotFound(RunError):
    """No run in the catalogue answers to this uid, short uid or scan id."""


class StreamMissing(RunError):
    """The run has no detector stream with area-detector frames."""


class MetadataMissing(RunError):
    """The run does not say something that the analysis needs (energy, distance, beam centre, ...)."""


class RunAborted(RunError):
    """The run ended with exit status abort or fail before it had enough frames."""


class FramesError(BeamlineMLError):
    """Detector data cannot be read."""


class FileMissing(FramesError):
    """The file that the documents point to is not there."""


class FileRefused(FramesError):
    """The file lies outside the allowed roots, is no regular file, or pulls in data from outside itself."""


class BudgetExceeded(FramesError):
    """Reading would take more memory than allowed."""


class GeometryError(BeamlineMLError):
    """A q-map, mask or geometry does not fit the frames or contradicts itself."""


class CorrelationError(BeamlineMLError):
    """Frames cannot be correlated."""


class FitRefused(BeamlineMLError):
    """A fit would not be trustworthy, so none is returned."""


class NotIdentifiable(FitRefused):
    """The data do not determine what is asked (for example, start positions that are too uncertain)."""


class DocumentRefused(BeamlineMLError):
    """A message is no bluesky document, or a document that makes no sense where it came."""


class ServiceError(BeamlineMLError):
    """A service (tiled, Prefect, worker, watcher) is down, refuses, or answers nonsense."""


class ResultError(BeamlineMLError):
    """A result cannot be published, found or read."""


class StructureRefused(BeamlineMLError):
    """A crystal structure cannot be read or trusted."""


class OpinionRefused(BeamlineMLError):
    """The teacher gives no second opinion on a crystal."""


class TeacherMissing(BeamlineMLError):
    """The optional extra with the teacher is not installed."""


class DataError(BeamlineMLError):
    """Training data or weights are missing, damaged, or not what they should be."""


class GuidanceError(BeamlineMLError):
    """A plan or an advice cannot be made from what was given."""
