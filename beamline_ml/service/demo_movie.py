"""The movie that the demo's detector plays back, made in a process of its own.

``python -m beamline_ml.service.demo_movie FOLDER`` simulates the seed system and writes ``movie.h5`` (the frames of the
run) and ``truth.npz`` (what the simulation alone knows: the noise-free correlation of the same trajectory, also after
the end of the run). With ``--movie FILE`` the frames are real: an .npz video of particles is turned into
coherent-scattering frames, an areaDetector HDF5 file is taken as it is; then there is no truth file.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation import QMap, bin_time, fit_relaxation, g2_from_two_time, two_time
from beamline_ml.errors import FramesError
from beamline_ml.frames.movie import write_movie
from beamline_ml.records import TwoTime
from beamline_ml.service.movie_source import check_movie, is_video, read_video
from beamline_ml.simulation import Movie, MovieRecipe, scattering_from_video, simulate_movie

TRUTH_FRAMES_PER_BLOCK = 4
"""The truth's two-time map is kept in blocks of this many frames: fine enough for every band that is compared."""


@dataclass(frozen=True)
class Truth:
    """What the simulation knows and no analysis may read."""

    q_inv_angstrom: NDArray[np.float64]
    relaxation_time_s: NDArray[np.float64]
    """(n_q,) KWW fit of the noise-free correlation of the observed frames."""
    contrast: NDArray[np.float64]
    stretching: NDArray[np.float64]
    diffusion_um2_per_s: float
    age_s: NDArray[np.float64]
    """(n_blocks,) over the run and the future that nobody measured."""
    c2: NDArray[np.float32]
    """(n_q, n_blocks, n_blocks) noise-free."""

    def write(self, path: Path) -> None:
        """Write as .npz."""
        np.savez_compressed(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @property
    def early_contrast(self) -> NDArray[np.float64]:
        """(n_q,) C2 - 1 of neighbouring blocks, the contrast also of rings that hardly relax."""
        return np.asarray(np.nanmean(np.diagonal(self.c2, offset=1, axis1=1, axis2=2), axis=1) - 1.0, dtype=np.float64)

    @classmethod
    def read(cls, path: Path) -> Truth:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in cls.__dataclass_fields__}
        return cls(**{**arrays, "diffusion_um2_per_s": float(arrays["diffusion_um2_per_s"])})


def truth_of(movie: Movie, n_observed: int, n_q: int) -> Truth:
    """Noise-free correlation of the movie's trajectory, for the same q rings as the analysis of the run uses."""
    if movie.intensity is None:
        raise FramesError("Real frames have no noise-free intensity.", "Only a simulated movie has a truth.")
    qmap = QMap.from_geometry(movie.geometry, movie.counts.shape[1:], n_q=n_q)
    whole = two_time(movie.intensity, qmap, frame_period_s=movie.frame_period_s)
    observed = two_time(movie.intensity[:n_observed], qmap, frame_period_s=movie.frame_period_s)
    fits = fit_relaxation(g2_from_two_time(observed), observed)
    blocks: TwoTime = bin_time(whole, TRUTH_FRAMES_PER_BLOCK)
    return Truth(
        q_inv_angstrom=qmap.q_inv_angstrom,
        relaxation_time_s=fits.relaxation_time_s,
        contrast=fits.contrast,
        stretching=fits.stretching,
        diffusion_um2_per_s=float(movie.truth["diffusion_um2_per_s"]),
        age_s=blocks.age_s,
        c2=blocks.c2,
    )


def write_simulated(folder: Path, n_q: int, seed: int) -> None:
    """Simulate the seed system, write the observed frames and the truth."""
    recipe = MovieRecipe()
    movie = simulate_movie(recipe, seed=seed)
    observed = movie.counts[: recipe.n_observed]
    truth_of(movie, recipe.n_observed, n_q).write(folder / "truth.npz")
    write_movie(
        folder / "movie.h5", observed, movie.geometry, movie.frame_period_s, movie.exposure_s, dict(movie.sample)
    )


def write_from_file(source: Path, folder: Path) -> None:
    """Make ``movie.h5`` out of a video (.npz) or an areaDetector HDF5 file.

    Raises
    ------
    FileMissing, FramesError
        When the file is not there or is neither.
    """
    check_movie(source)
    if is_video(source):
        movie = scattering_from_video(*read_video(source))
        sample = {**movie.sample, "name": source.stem}
        write_movie(folder / "movie.h5", movie.counts, movie.geometry, movie.frame_period_s, movie.exposure_s, sample)
        return
    (folder / "movie.h5").unlink(missing_ok=True)
    (folder / "movie.h5").symlink_to(source.resolve())


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--movie", type=Path, default=None)
    parser.add_argument("--n-q", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    if chosen.movie is None:
        write_simulated(chosen.folder, chosen.n_q, chosen.seed)
    else:
        write_from_file(chosen.movie, chosen.folder)


if __name__ == "__main__":
    main()
