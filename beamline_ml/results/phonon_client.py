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
    def windows(self) -> pd.DataFrame:
        """Modes of the cell in each energy window, with their 90 % band."""
        return self["windows"].read()

    @property
    def edges_mev(self) -> Float64Array:
        """(n_w + 1,) edges of the energy windows in meV."""
        windows = self.windows
        return np.append(windows["energy_lower_mev"], windows["energy_upper_mev"].iloc[-1])

    @property
    def modes(self) -> Float64Array:
        """(n_w,) modes of the cell in each window; sum 3N."""
        return self.windows["modes"].to_numpy()

    @property
    def thermodynamics(self) -> pd.DataFrame:
        """Heat capacity with its 90 % band, and entropy, over temperature."""
        return self["thermodynamics"].read()

    def plot(self) -> Figure:
        """The density of states with its 90 % band."""
        from matplotlib.figure import Figure

        windows, edges = self.windows, self.edges_mev
        per_mev = windows[["modes", "modes_lower", "modes_upper"]].div(np.diff(edges), axis=0)
        figure = Figure(figsize=(7.0, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.stairs(
            per_mev["modes_upper"], edges, baseline=per_mev["modes_lower"], fill=True, alpha=0.25, label="90 % band"
        )
        axes.stairs(per_mev["modes"], edges, label="predicted")
        filled = int(np.searchsorted(windows["modes"].cumsum() / windows["modes"].sum(), 0.995))
        axes.set_xlim(0.0, 1.1 * edges[min(filled + 1, len(edges) - 1)].item())
        axes.set_xlabel("phonon energy (meV)")
        axes.set_ylabel("modes/meV")
        axes.set_title(self.sample_name, loc="left")
        axes.legend(frameon=False)
        return figure
