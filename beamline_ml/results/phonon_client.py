"""A phonon density of states as people hold it: the tiled client class of the spec ``PhononDOS``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tiled.client.container import Container

from beamline_ml.records import Float64Array

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class PhononDOS(Container):
    """Prediction for one sample; arrays are fetched when they are asked for."""

    def __repr__(self) -> str:
        return f"<PhononDOS {self.item['id']}: {self.sample_name}, {self.metadata.get('status')}>"

    @property
    def sample_name(self) -> str:
        """Name of the sample."""
        return str(self.metadata.get("sample", {}).get("name", "unnamed"))

    @property
    def run_uids(self) -> tuple[str, ...]:
        """Runs that were made of the sample."""
        return tuple(self.metadata.get("run_uids", ()))

    @property
    def headline(self) -> dict[str, Any]:
        """The few numbers that people ask for first."""
        return dict(self.metadata.get("headline", {}))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons for caution."""
        return tuple(self.metadata.get("warnings", ()))

    @property
    def edges_mev(self) -> Float64Array:
        """(n_w + 1,) edges of the energy windows in meV."""
        return np.asarray(self["edges_mev"].read())

    @property
    def modes(self) -> Float64Array:
        """(n_w,) modes of the cell in each window; sum 3N."""
        return np.asarray(self["modes"].read())

    @property
    def thermodynamics(self) -> pd.DataFrame:
        """Heat capacity with its 90 % band, and entropy, over temperature."""
        return self["thermodynamics"].read()

    def plot(self) -> Figure:
        """The density of states with its 90 % band."""
        from matplotlib.figure import Figure

        edges, width = self.edges_mev, np.diff(self.edges_mev)
        low, high = (np.asarray(self[name].read()) / width for name in ("modes_lower", "modes_upper"))
        figure = Figure(figsize=(7.0, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.stairs(high, edges, baseline=low, fill=True, alpha=0.25, label="90 % band")
        axes.stairs(self.modes / width, edges, label="predicted")
        filled = int(np.searchsorted(np.cumsum(self.modes) / self.modes.sum(), 0.995))
        axes.set_xlim(0.0, 1.1 * edges[min(filled + 1, len(edges) - 1)].item())
        axes.set_xlabel("phonon energy (meV)")
        axes.set_ylabel("modes/meV")
        axes.set_title(self.sample_name, loc="left")
        axes.legend(frameon=False)
        return figure
