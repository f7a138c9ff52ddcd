"""The network's prediction and a second opinion as one: weighed on materials that neither was trained on.

Three columns are weighed: the ensemble, the second opinion stretched by one factor for all crystals, and the second
opinion stretched until its mean frequency is the ensemble's. The published points are weighed for least squared error,
the modes per window for least distance between cumulative densities (stacked generalisation: Wolpert, Neural Networks
5, 241 (1992)). The bands are calibrated anew; the second opinion counts as one more member whose disagreement widens
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from scipy.optimize import nnls

from beamline_ml.errors import DataError, OpinionRefused
from beamline_ml.phonons.conformal import Calibration
from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.dos import PhononDos
from beamline_ml.phonons.opinion import SecondOpinion
from beamline_ml.phonons.thermodynamics import window_mean
from beamline_ml.phonons.windows import EDGES_INV_CM, WIDTHS_INV_CM
from beamline_ml.records import Float64Array

STRETCHES: Float64Array = np.arange(1.0, 1.1201, 0.01)
"""Tried for all second opinions together; the one with the least squared error is taken."""
MAX_STRETCH = 1.3
"""A second opinion farther off than this factor is not stretched to the ensemble's mean frequency, only so far."""
SHIPPED_STACKING = Path(__file__).parent / "weights" / "teacher_stacking.safetensors"
_MIDDLE_INV_CM = window_mean(lambda frequency: frequency, EDGES_INV_CM)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the ensemble says of one crystal."""

    shares: Float64Array
    """(n_members, 72)."""
    points: Float64Array
    """(n_members, 51)."""


@dataclass(frozen=True, slots=True)
class Stacking:
    """How much either counts, and the bands of the sum; call it with a prediction and a second opinion."""

    stretch: float
    """By which the frequencies of every second opinion are stretched."""
    point_weights: Float64Array
    """(3,) of ensemble, stretched and aligned second opinion, for the published points."""
    share_weights: Float64Array
    """(3,) for the modes per window; sum 1."""
    calibration: Calibration
    model: str
    """Version of the ensemble that was weighed; another one needs another stacking."""
    n_materials: int
    """Materials that weights and bands rest on."""

    @property
    def version(self) -> str:
        """Short name: changes with every number in it."""
        numbers = np.concatenate([np.ravel(value) for value in self.to_arrays().values()])
        return f"stack-{hashlib.sha256(numbers.tobytes()).hexdigest()[:8]}"

    @property
    def stacked_model(self) -> str:
        """Version of predictions that heed a second opinion."""
        return f"{self.model}+{self.version}"

    @staticmethod
    def fit(
        predicted: Sequence[Predicted], opinions: Sequence[SecondOpinion], materials: Sequence[Material], model: str
    ) -> Stacking:
        """Weights and bands from held-out materials, in the same order everywhere."""
        true_points, true = np.stack([m.points for m in materials]), np.stack([m.shares for m in materials])

        def fitted(stretch: float) -> tuple[float, float, Float64Array]:
            columns = [_point_columns(p, o, stretch) for p, o in zip(predicted, opinions, strict=True)]
            weights, residual = nnls(np.concatenate(columns, axis=1).T, true_points.ravel())
            return residual, stretch, weights

        _, stretch, point_weights = min((fitted(float(s)) for s in STRETCHES), key=lambda found: found[0])
        shares = [_share_columns(p, o, stretch) for p, o in zip(predicted, opinions, strict=True)]
        share_weights, _ = nnls(np.concatenate([_cumulative(s) for s in shares], axis=1).T, _cumulative(true).ravel())
        share_weights /= share_weights.sum()
        stacked = np.stack([share_weights @ s for s in shares])
        members = np.stack([_members(p, s) for p, s in zip(predicted, shares, strict=True)], axis=1)
        calibration = Calibration.fit(stacked, members, true)
        return Stacking(stretch, point_weights, share_weights, calibration, model, len(materials))

    def points(self, predicted: Predicted, opinion: SecondOpinion) -> Float64Array:
        """(51,) the published convention."""
        value: Float64Array = self.point_weights @ _point_columns(predicted, opinion, self.stretch)
        return value

    def shares(self, predicted: Predicted, opinion: SecondOpinion) -> Float64Array:
        """(72,) share of the modes per window; sum 1."""
        value: Float64Array = self.share_weights @ _share_columns(predicted, opinion, self.stretch)
        return value / value.sum()

    def __call__(self, dos: PhononDos, opinion: SecondOpinion) -> PhononDos:
        """The stacked prediction: the same record with other numbers, bands and model.

        Raises
        ------
        OpinionRefused
            The prediction comes from other weights than those that were weighed.
        """
        if dos.model != self.model:
            raise OpinionRefused(
                f"The second opinion was weighed against {self.model}, not {dos.model}.",
                "Weigh it anew with `beamline-ml phonons stack`; the prediction of the network alone stands.",
            )
        predicted = Predicted(dos.member_shares, dos.member_points)
        columns = _share_columns(predicted, opinion, self.stretch)
        shares, members = self.shares(predicted, opinion), _members(predicted, columns)
        lower, upper = self.calibration.windows.band(shares, members.std(axis=0, ddof=1))
        n_modes = 3.0 * len(dos.numbers)
        return replace(
            dos,
            modes=n_modes * shares,
            modes_lower=n_modes * lower,
            modes_upper=n_modes * upper,
            dos_51=self.points(predicted, opinion),
            site_modes=fitted_to_margins(dos.site_modes, n_modes * shares),
            member_shares=members,
            member_points=np.vstack([dos.member_points, opinion.points(self.stretch)]),
            calibration=self.calibration,
            model=self.stacked_model,
            second_opinion=f"{opinion.source}; {opinion.seconds:.0f} s",
        )

    def to_arrays(self) -> dict[str, Float64Array]:
        """Numbers of the stacking as plain arrays."""
        return {
            "stretch": np.array([self.stretch]),
            "point_weights": self.point_weights,
            "share_weights": self.share_weights,
            "n_materials": np.array([float(self.n_materials)]),
            **{f"calibration.{name}": value for name, value in self.calibration.to_arrays().items()},
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[np.float64]], model: str) -> Stacking:
        """The stacking that ``to_arrays`` wrote."""
        prefix = "calibration."
        bands = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        return Stacking(
            float(arrays["stretch"][0]),
            arrays["point_weights"],
            arrays["share_weights"],
            Calibration.from_arrays(bands),
            model,
            int(arrays["n_materials"][0]),
        )


def load_stacking(file: Path = SHIPPED_STACKING) -> Stacking:
    """The shipped stacking, or another that ``beamline-ml phonons stack`` wrote.

    Raises
    ------
    DataError
        There is no such file.
    """
    if not file.is_file():
        raise DataError(f"There is no stacking {file}.", "Make one with `beamline-ml phonons stack`.")
    with safe_open(file, framework="numpy") as stored:
        arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no dict)
        return Stacking.from_arrays(arrays, stored.metadata()["model"])


def fitted_to_margins(site_modes: Float64Array, modes: Float64Array, rounds: int = 500) -> Float64Array:
    """Site-projected modes with the sums over sites that ``modes`` demands, and 3 per site still.

    Iterative proportional fitting (Deming & Stephan, Ann. Math. Stat. 11, 427 (1940)): of all divisions with these
    margins the one closest to ``site_modes`` in relative entropy.

    Parameters
    ----------
    site_modes
        (n_atoms, n_w) positive.
    modes
        (n_w,) with sum 3 n_atoms.
    """
    fitted = np.maximum(site_modes, 1e-12) * (modes > 0.0)
    for _ in range(rounds):
        fitted = fitted * (3.0 / fitted.sum(axis=1, keepdims=True))
        totals = fitted.sum(axis=0)
        fitted = fitted * np.divide(modes, totals, out=np.zeros_like(modes), where=totals > 0.0)
        if np.abs(totals - modes).max() < 1e-9:
            break
    return fitted


def _aligned(predicted: Predicted, opinion: SecondOpinion) -> float:
    """Stretch that gives the second opinion the ensemble's mean frequency."""
    mean = float(predicted.shares.mean(axis=0) @ _MIDDLE_INV_CM)
    return float(np.clip(mean / opinion.mean_inv_cm, 1.0 / MAX_STRETCH, MAX_STRETCH))


def _point_columns(predicted: Predicted, opinion: SecondOpinion, stretch: float) -> Float64Array:
    """(3, 51)."""
    aligned = _aligned(predicted, opinion)
    return np.stack([predicted.points.mean(axis=0), opinion.points(stretch), opinion.points(aligned)])


def _share_columns(predicted: Predicted, opinion: SecondOpinion, stretch: float) -> Float64Array:
    """(3, 72)."""
    aligned = _aligned(predicted, opinion)
    return np.stack([predicted.shares.mean(axis=0), opinion.shares(stretch), opinion.shares(aligned)])


def _members(predicted: Predicted, columns: Float64Array) -> Float64Array:
    """(n_members + 1, 72) the ensemble's members and the stretched second opinion."""
    return np.vstack([predicted.shares, columns[1]])


def _cumulative(shares: Float64Array) -> Float64Array:
    """(n, 72) cumulative shares, weighed by the width of the windows up to the limit of the published convention."""
    width = np.where(WIDTHS_INV_CM <= 20.0, WIDTHS_INV_CM, 20.0)
    value: Float64Array = np.cumsum(shares, axis=1) * np.sqrt(width)
    return value
