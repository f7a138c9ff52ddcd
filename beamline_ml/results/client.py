"""A result as people hold it: the tiled client class of the spec ``XPCSFit``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tiled.client.container import Container

from beamline_ml.errors import ResultError
from beamline_ml.records import BoolArray, Float64Array, Forecast

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class ForceKernel:
    """Radial interaction that the dynamics fit found."""

    r_um: Float64Array
    """(n_r,) distance between two particles."""
    mean_um_per_s: Float64Array
    """(n_r,) drift velocity; positive pushes apart."""
    std_um_per_s: Float64Array
    """(n_r,) its standard deviation."""
    resolved: BoolArray
    """(n_r,) False closer than pi / q_max, where neither can be relied on. Results that do not say: True."""


class XPCSFit(Container):
    """Result of one run under one set of settings.

    Arrays are fetched when they are asked for, and kept.
    """

    def __repr__(self) -> str:
        return f"<XPCSFit {self.key}: {self.sample_name}, scan {self.scan_id}, {self.status}>"

    @property
    def key(self) -> str:
        """Name in ``results/``."""
        return str(self.item["id"])

    @property
    def status(self) -> str:
        """'writing', 'complete' or 'failed'."""
        return str(self.metadata["status"])

    @property
    def error(self) -> dict[str, str] | None:
        """Of a failed analysis: type, culprit (what is wrong) and remedy (what to do)."""
        error = self.metadata.get("error")
        return None if error is None else {name: str(error.get(name, "")) for name in ("type", "culprit", "remedy")}

    @property
    def scan_uid(self) -> str:
        """Uid of the run."""
        return str(self.metadata["scan_uid"])

    @property
    def scan_id(self) -> int | None:
        """Scan number of the run."""
        scan_id: int | None = self.metadata.get("scan_id")
        return scan_id

    @property
    def sample_name(self) -> str:
        """Name of the sample."""
        return str(self.metadata.get("sample", {}).get("name", "unnamed"))

    @property
    def run_time(self) -> datetime | None:
        """When the run began."""
        seconds = self.metadata.get("run_time")
        return None if seconds is None else datetime.fromtimestamp(seconds)

    @property
    def headline(self) -> dict[str, Any]:
        """The few numbers that people ask for first."""
        return dict(self.metadata.get("headline", {}))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the numbers depend on."""
        return dict(self.metadata.get("settings", {}))

    @property
    def warnings(self) -> list[str]:
        """What to know before relying on this result."""
        return list(self.metadata.get("warnings", []))

    @property
    def diffusion_coefficient_um2_per_s(self) -> tuple[float, float] | None:
        """D and its error from tau(q), or None where the dynamics are not diffusive."""
        value = self.headline.get("diffusion_coefficient_um2_per_s")
        error = self.headline.get("diffusion_coefficient_um2_per_s_err")
        return None if value is None or error is None else (float(value), float(error))

    @cached_property
    def c2(self) -> NDArray[np.float32]:
        """(n_q, n_rows, n_rows) two-time correlation."""
        return self._array("c2")

    @cached_property
    def age_s(self) -> Float64Array:
        """(n_rows,) time of each row of c2 since the start of the run."""
        return self._array("age_s")

    @cached_property
    def q_inv_angstrom(self) -> Float64Array:
        """(n_q,) momentum transfer."""
        return self._array("q_inv_angstrom")

    @cached_property
    def intensity(self) -> NDArray[np.float32]:
        """(n_q, n_rows) mean counts per pixel and frame."""
        return self._array("intensity")

    @cached_property
    def g2(self) -> Float64Array:
        """(n_q, n_delays) intensity correlation function."""
        return self._array("g2")

    @cached_property
    def g2_err(self) -> Float64Array:
        """(n_q, n_delays) its standard error."""
        return self._array("g2_err")

    @cached_property
    def delay_s(self) -> Float64Array:
        """(n_delays,) lag times of g2."""
        return self._array("delay_s")

    @cached_property
    def relaxation(self) -> pd.DataFrame:
        """One row per q bin: relaxation time, contrast, stretching, baseline with errors; why a fit was refused."""
        return self._table("relaxation")

    @cached_property
    def contest(self) -> pd.DataFrame:
        """Rolling-origin score of every forecaster, the best first."""
        return self._table("contest")

    @cached_property
    def forecast(self) -> Forecast | None:
        """How the sample goes on after the last frame, with a 95 % band; None when there is no forecast."""
        if "forecast_c2" not in self:
            return None
        lower, upper = self._array("forecast_c2_band")
        s_q_lower, s_q_upper = self._array("forecast_s_q_band")
        contest = self.contest if "contest" in self else None
        scores = {} if contest is None else dict(zip(contest["method"], contest["rmse"].astype(float), strict=True))
        return Forecast(
            observed_until_s=float(self.headline["forecast_from_s"]),
            method=str(self.headline["forecast_method"]),
            score=float("nan") if self.headline["forecast_score"] is None else float(self.headline["forecast_score"]),
            contest=scores,
            refused=self.headline.get("forecast_refused"),
            times_s=self._array("forecast_times_s"),
            q_inv_angstrom=np.array(self.metadata["forecast_q_inv_angstrom"], np.float64),
            c2=self._array("forecast_c2"),
            lower=lower,
            upper=upper,
            s_q=self._array("forecast_s_q"),
            s_q_lower=s_q_lower,
            s_q_upper=s_q_upper,
        )

    @cached_property
    def kernel(self) -> ForceKernel | None:
        """The interaction that the dynamics fit found; None when there was no fit."""
        if "kernel" not in self:
            return None
        table = self._table("kernel")
        names = ("r_um", "mean_um_per_s", "std_um_per_s")
        r_um, mean, deviation = (np.asarray(table[name], np.float64) for name in names)
        resolved = table["resolved"] if "resolved" in table.columns else np.ones(len(table))
        return ForceKernel(r_um, mean, deviation, np.asarray(resolved, bool))

    def summary(self) -> str:
        """What came out, in words."""
        if self.error is not None:
            return f"{self.key}: the analysis failed. {self.error['culprit']} {self.error['remedy']}"
        when = "" if self.run_time is None else f", taken {self.run_time:%Y-%m-%d %H:%M:%S}"
        lines = [f"{self.sample_name}, scan {self.scan_id} ({self.scan_uid[:8]}){when}"]
        lines += self.metadata.get("summary", [])
        return "\n".join([*lines, *(f"Note: {warning}" for warning in self.warnings)])

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the result on one page.

        Parameters
        ----------
        path
            Where to save it (.png, .pdf, .svg); None only draws.
        """
        from beamline_ml.results.figures import draw
        from beamline_ml.results.picture import picture_of

        figure = draw(picture_of(self))
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def export(self, filepath: Any, fields: Any = None, *, format: str | None = None) -> Any:
        """Write the result to a file: ``export("aps", path)`` or ``export("nxxpcs", path)``.

        Parameters
        ----------
        filepath
            ``"aps"`` for the layout of APS 8-ID, which pyXpcsViewer opens; ``"nxxpcs"`` for the NeXus application
            definition. Anything else is a path for tiled's own export, in the format of its suffix or of ``format``.
        fields
            Path of the file to write; for tiled's own export, the names to export.

        Returns
        -------
        path
            Path of the APS or NXxpcs file.

        Raises
        ------
        ResultError
            When the result is not complete, or no path is given.
        """
        if filepath not in ("aps", "nxxpcs"):
            return super().export(filepath, fields, format=format)
        if not isinstance(fields, str | Path):
            raise ResultError(f"There is no file to write {filepath} to.", 'For example: result.export("aps", "a.hdf")')
        if filepath == "aps":
            from beamline_ml.results.aps import export_aps

            return export_aps(self, fields)
        return self.export_nxxpcs(fields)

    def export_nxxpcs(self, path: str | Path) -> Path:
        """Write the result as a NeXus file of the application definition NXxpcs."""
        from beamline_ml.results.nxxpcs import export_nxxpcs

        return export_nxxpcs(self, Path(path))

    def _array(self, name: str) -> Any:
        self._require(name)
        return self[name].read()

    def _table(self, name: str) -> Any:
        self._require(name)
        return self[name].read()

    def _require(self, name: str) -> None:
        if self.status == "failed":
            raise ResultError(f"{self.key} has no {name}: the analysis failed.", self.summary())
        if name not in self:
            raise ResultError(
                f"{self.key} has no {name}.",
                "It is still being written; wait a moment." if self.status == "writing" else "Reprocess the run.",
            )
