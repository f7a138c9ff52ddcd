"""The flow over a catalogue: what is new is predicted, what is bad is refused by name, what is there is left alone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from flows.phonon_dos import phonon_dos

pytestmark = pytest.mark.usefixtures("prefect_server")


def cif(atoms: Atoms) -> str:
    buffer = io.BytesIO()
    write(buffer, atoms, format="cif")
    return buffer.getvalue().decode()


def described(atoms: Atoms) -> dict[str, Any]:
    return {
        "symbols": atoms.get_chemical_symbols(),
        "cell": atoms.cell.tolist(),
        "scaled_positions": atoms.get_scaled_positions().tolist(),
    }


@pytest.fixture
def phonons(beamline: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Container that the flow publishes in, reached through the results."""
    return lambda: beamline.container["phonons"]


@pytest.mark.slow
def test_catalogue_of_good_and_bad_samples(record_run: Any, tiled_root: Any, phonons: Any) -> None:
    salt, oxide = bulk("NaCl", "rocksalt", a=5.64), bulk("MgO", "rocksalt", a=4.21)
    first = record_run(None, sample={"name": "halite", "composition": "NaCl", "cif": cif(salt)})
    record_run(None, sample={"name": "periclase", "structure": described(oxide)})
    record_run(None, sample={"name": "half-written", "cif": cif(salt)[:200]})
    record_run(None, sample={"name": "gadolinium", "cif": cif(bulk("Gd", "hcp", a=3.63, c=5.78))})
    record_run(None, sample={"name": "crowded", "structure": described(Atoms("Si", cell=[0.6, 4, 4], pbc=True))})
    record_run(None, sample={"name": "latex in water", "composition": "C8H8"})
    samples = tiled_root.create_container("samples")
    samples.create_container("wafer", metadata={"cif": cif(bulk("Si", "diamond", a=5.43))})

    said = phonon_dos()
    assert set(said["refused"]) == {"half-written", "gadolinium", "crowded"}
    assert "Gd" in said["refused"]["gadolinium"]
    assert "half-written" in said["refused"]["half-written"]
    assert len(said["published"]) == 3
    result = {node.metadata["sample"]["name"]: node for node in phonons().values()}
    assert set(result) == {"halite", "periclase", "wafer"}
    halite = result["halite"]
    assert halite.metadata["status"] == "complete"
    assert [spec.name for spec in halite.specs] == ["PhononDOS"]
    assert halite.metadata["run_uids"] == [first.metadata["start"]["uid"]]
    assert halite.modes.sum() == pytest.approx(6.0, abs=1e-6)
    assert halite["site_modes"].shape == (2, len(halite.edges_mev) - 1)
    windows = halite.windows
    assert (windows["modes_lower"] <= windows["modes"]).all()
    assert (windows["modes"] <= windows["modes_upper"]).all()
    assert halite.plot().axes[0].get_xlabel() == "phonon energy (meV)"
    assert halite.metadata["headline"]["heat_capacity_300k_j_per_k_mol"] == pytest.approx(24.0, abs=1.5)
    table = halite["thermodynamics"].read()
    assert np.all(np.diff(table["heat_capacity_j_per_k_mol"]) > 0)

    again = record_run(None, sample={"name": "halite", "composition": "NaCl", "cif": cif(salt)})
    said = phonon_dos()
    assert said["published"] == []
    assert said["unchanged"] == 3
    halite = phonons()[halite.item["id"]]
    assert set(halite.metadata["run_uids"]) == {first.metadata["start"]["uid"], again.metadata["start"]["uid"]}

    record_run(None, sample={"name": "halite", "composition": "NaCl", "cif": cif(bulk("NaCl", "rocksalt", a=5.70))})
    said = phonon_dos(samples=["halite"])
    assert len(said["published"]) == 1
    assert said["refused"] == {}
