"""Structures that catalogue entries describe: what is read, and what is refused before any number is made."""

from __future__ import annotations

from typing import Any

import pytest
from ase.build import bulk

from beamline_ml.errors import StructureRefused
from beamline_ml.service.phonon_samples import CatalogueSample, readable

SALT = bulk("NaCl", "rocksalt", a=5.64)
DESCRIBED = {"symbols": ["Na", "Cl"], "cell": SALT.cell.tolist(), "positions": SALT.positions.tolist()}


def sample(**changes: Any) -> CatalogueSample:
    return CatalogueSample("halite", {"name": "halite", "structure": {**DESCRIBED, **changes}})


@pytest.mark.parametrize("occupancies", [None, [1.0, 1.0], 1])
def test_a_full_description_is_read(occupancies: Any) -> None:
    told = {} if occupancies is None else {"occupancies": occupancies}
    assert sample(**told).atoms().get_chemical_formula() == "ClNa"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"occupancies": [1.0, 0.5]}, "partially occupied"),
        ({"occupancy": {"0": {"Na": 0.5, "K": 0.5}}}, "partially occupied"),
        ({"positions": [[0, 0, 0]]}, "cannot be read"),
        ({"symbols": ["Na", "Qq"]}, "cannot be read"),
        ({"cell": "wide"}, "cannot be read"),
        ({"pbc": False}, "not periodic"),
        ({"positions": [[0, 0, 0], [0.4, 0, 0]]}, "0.40 angstrom"),
    ],
)
def test_a_bad_description_is_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(StructureRefused, match=reason) as refusal:
        sample(**changes).atoms()
    assert "halite" in str(refusal.value)


def test_one_bad_sample_does_not_stop_the_others() -> None:
    bad = CatalogueSample("halved", {"name": "halved", "structure": {**DESCRIBED, "occupancies": [0.5, 0.5]}})
    crystals, refused = readable([sample(), bad])
    assert [s.name for s, _ in crystals] == ["halite"]
    assert set(refused) == {"halved"}
