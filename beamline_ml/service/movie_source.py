"""Real frames that a person gives to the demo: checked before anything is started for them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import FileMissing, FramesError
from beamline_ml.frames.movie import open_movie

VIDEO_FIELDS = ("frames", "frame_period_s", "um_per_px")


def is_video(path: Path) -> bool:
    """Whether this is a video of particles rather than scattering frames."""
    return path.suffix == ".npz"


def check_movie(path: Path) -> None:
    """Refuse a file that is neither a video (.npz) nor an areaDetector HDF5 file with frames.

    Raises
    ------
    FileMissing, FramesError
        Naming the file and what it lacks.
    """
    if not path.is_file():
        raise FileMissing(f"There is no movie {path}.", "Check the path.")
    if is_video(path):
        read_video(path)
        return
    with open_movie(path):
        return


def read_video(path: Path) -> tuple[NDArray[Any], float, float]:
    """Frames, frame period in s and um per pixel of an .npz video.

    Raises
    ------
    FramesError
        When a field is missing or makes no sense; the message names it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in VIDEO_FIELDS if name not in file]
            if missing:
                raise FramesError(f"The video {path} lacks {', '.join(missing)}.", f"It needs {VIDEO_FIELDS}.")
            frames, frame_period_s, um_per_px = (file[name] for name in VIDEO_FIELDS)
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        raise FramesError(f"{path} is no .npz video ({error}).", f"Save {VIDEO_FIELDS} with numpy.savez.") from error
    if frames.ndim != 3 or 0 in frames.shape or frames.dtype.kind not in "uif":
        raise FramesError(
            f"The frames of {path} have shape {frames.shape} and type {frames.dtype}.",
            "Give numbers of shape (n_frames, rows, cols); average the colours of a colour video.",
        )
    if not (frame_period_s > 0 and um_per_px > 0 and np.isfinite([frame_period_s, um_per_px]).all()):
        raise FramesError(
            f"{path} says frame_period_s = {frame_period_s} and um_per_px = {um_per_px}.", "Both must be positive."
        )
    return frames, float(frame_period_s), float(um_per_px)
