"""The area detector of a profile: the areaDetector IOC whose prefix the settings name, else a movie player."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ophyd_async.core import NotConnectedError, StandardDetector, StaticPathProvider, UUIDFilenameProvider, init_devices

from beamline_ml.acquisition.detector import MovieDetector
from beamline_ml.errors import AcquisitionError
from beamline_ml.settings import Settings

DetectorClass = Callable[..., StandardDetector]
"""An areaDetector class of ophyd-async, called with prefix, HDF5 writer and name."""


def connect_area_detector(
    settings: Settings, folder: Path, detector_class: DetectorClass | None = None, timeout_s: float = 10.0
) -> StandardDetector:
    """Make the detector ``det`` of a profile and connect to it.

    Parameters
    ----------
    settings
        ``acquisition.detector_prefix`` names the areaDetector IOC; without it ``acquisition.movie`` is played.
    folder
        Where the frames go, under one path for the IOC and for this machine.
    detector_class
        The ophyd-async class that fits the driver, for example ``ophyd_async.epics.adpilatus.PilatusDetector``. None
        means ``SimDetector``, which asks for nothing beyond what all areaDetector drivers have.
    timeout_s
        How long to wait for the IOC, in s.

    Raises
    ------
    AcquisitionError
        When there is no EPICS client in this environment, or records of the IOC do not answer in time.
    """
    files = StaticPathProvider(UUIDFilenameProvider(), folder)
    if prefix := settings.acquisition.detector_prefix:
        return _connect(prefix, files, detector_class, timeout_s)
    with init_devices():
        det = MovieDetector(files, movie_path=settings.acquisition.movie, name="det")
    return det  # noqa: RET504 - connected at the end of the block


def _connect(
    prefix: str, files: StaticPathProvider, detector_class: DetectorClass | None, timeout_s: float
) -> StandardDetector:
    # Imported here, because it loads the EPICS libraries.
    from ophyd_async.epics.adcore import ADWriterFactory
    from ophyd_async.epics.adsimdetector import SimDetector

    try:
        with init_devices(timeout=timeout_s):
            det = (detector_class or SimDetector)(prefix, ADWriterFactory.hdf(files), name="det")
    except NotImplementedError as error:  # what ophyd-async says without a client library
        remedy = "pip install 'beamline-ml[epics]', or leave acquisition.detector_prefix empty to play a movie."
        raise AcquisitionError(f"No EPICS client is installed to reach {prefix} with.", remedy) from error
    except NotConnectedError as error:
        raise _unanswered(prefix, error) from error
    return det


def _unanswered(prefix: str, error: NotConnectedError) -> AcquisitionError:
    silent = list(_silent(error))
    return AcquisitionError(
        f"{len(silent)} records of the areaDetector IOC {prefix} do not answer as they should, among them {silent[0]}.",
        "Start the IOC; check acquisition.detector_prefix and EPICS_CA_ADDR_LIST, and that the detector class of "
        "20-detectors.py fits the driver.",
    )


def _silent(error: Exception) -> Iterator[str]:
    """What stands at the ends of a tree of errors."""
    branches = error.sub_errors.values() if isinstance(error, NotConnectedError) else ()
    for branch in branches:
        yield from _silent(branch)
    if not branches:
        yield str(error).strip()
