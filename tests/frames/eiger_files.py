"""Eiger series as the detector's file writer leaves them: a master and numbered data files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

ROWS, COLS = 32, 24
DETECTOR = "entry/instrument/detector"
FIELDS = {
    f"{DETECTOR}/frame_time": (0.02, "s"),
    f"{DETECTOR}/count_time": (0.0199, "s"),
    f"{DETECTOR}/detector_distance": (4.0, "m"),
    f"{DETECTOR}/x_pixel_size": (75e-6, "m"),
    f"{DETECTOR}/y_pixel_size": (75e-6, "m"),
    f"{DETECTOR}/beam_center_x": (11.5, "pixel"),
    f"{DETECTOR}/beam_center_y": (15.5, "pixel"),
    "entry/instrument/beam/incident_wavelength": (1.5498025, "angstrom"),
}


def write_eiger(
    folder: Path,
    counts: np.ndarray,
    lengths: Sequence[int],
    name: str = "series",
    mask: np.ndarray | None = None,
    group: str = "entry/data",
    **links: str,
) -> Path:
    """Write a series whose data files hold ``lengths`` frames each; ``links`` replaces names of data files."""
    master = folder / f"{name}_master.h5"
    with h5py.File(master, "w", libver="latest") as file:
        first = 0
        for number, length in enumerate(lengths, 1):
            target = f"{name}_data_{number:06d}.h5"
            write_data(folder / target, counts[first : first + length])
            link = f"data_{number:06d}"
            file[f"{group}/{link}"] = h5py.ExternalLink(links.get(link, target), "/entry/data/data")
            first += length
        for path, (value, unit) in FIELDS.items():
            file.create_dataset(path, data=value).attrs["units"] = unit
        specific = f"{DETECTOR}/detectorSpecific"
        file.create_dataset(f"{specific}/nimages", data=len(counts))
        file.create_dataset(f"{specific}/ntrigger", data=1)
        if mask is not None:
            file.create_dataset(f"{specific}/pixel_mask", data=mask, **hdf5plugin.Bitshuffle(cname="lz4"))
    return master


def write_data(path: Path, counts: np.ndarray) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        chunks = (1, *counts.shape[1:])
        file.create_dataset("entry/data/data", data=counts, chunks=chunks, **hdf5plugin.Bitshuffle(cname="lz4"))
