"""Symmetries of the untrained network in both precisions: they must hold whatever the weights are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from e3nn import o3

from beamline_ml.phonons.graph import CrystalGraph, build_graph, side_by_side
from beamline_ml.phonons.network import NetworkOutput, NetworkShape, PhononNetwork

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}


def crystal() -> Atoms:
    """No symmetry left: a rattled wurtzite cell with four kinds of atoms."""
    atoms = bulk("ZnS", "wurtzite", a=3.81, c=6.23)
    atoms.symbols = ["Zn", "Mg", "S", "O"]
    atoms.rattle(0.15, seed=2)
    return atoms


def network(dtype: torch.dtype) -> PhononNetwork:
    torch.manual_seed(5)
    net = PhononNetwork(NetworkShape(n_scalars=16, n_vectors=8, n_tensors=4, radial_width=16, head_width=32))
    # Larger weights than at the start: an answer that hardly depends on the crystal would pass every test below.
    with torch.no_grad():
        for part in (net.expansion, net.contraction):
            part.radial[-1].weight.mul_(30.0)
        net.head.mix[0].weight.mul_(3.0)
        net.head.windows.weight.mul_(20.0)
        torch.nn.init.normal_(net.head.correction.weight, std=0.1)
    return net.to(dtype).eval().requires_grad_(False)


def graph(atoms: Atoms, dtype: torch.dtype) -> CrystalGraph:
    return build_graph(atoms.numbers, atoms.positions, atoms.cell.array, dtype)


def assert_same(a: NetworkOutput, b: NetworkOutput, tolerance: float) -> None:
    torch.testing.assert_close(a.shares, b.shares, atol=tolerance, rtol=0.0)
    torch.testing.assert_close(a.points, b.points, atol=10.0 * tolerance, rtol=0.0)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def test_atoms_differ_in_the_crystal_under_test(dtype: torch.dtype) -> None:
    """Otherwise the invariances below would say nothing."""
    sites = network(dtype)(graph(crystal(), dtype)).site_shares
    assert (sites[0] - sites[2]).abs().max() > 1e-3


def test_every_atom_owns_all_its_modes(dtype: torch.dtype) -> None:
    output = network(dtype)(graph(crystal(), dtype))
    torch.testing.assert_close(output.site_shares.sum(dim=1), torch.ones(4, dtype=dtype), atol=1e-6, rtol=0.0)


def test_rotation_and_inversion(dtype: torch.dtype) -> None:
    net, original = network(dtype), graph(crystal(), dtype)
    torch.manual_seed(0)
    for determinant in (1.0, -1.0):
        turn = (
            determinant * o3.matrix_y(torch.rand(1, dtype=torch.float64))[0] @ o3.matrix_x(torch.tensor(0.7).double())
        )
        turned = replace(original, vectors=(original.vectors.double() @ turn.T).to(dtype))
        assert_same(net(turned), net(original), TOLERANCE[dtype])


def test_the_shape_of_the_cell_matters(dtype: torch.dtype) -> None:
    net, atoms = network(dtype), crystal()
    sheared = atoms.copy()
    sheared.set_cell(atoms.cell.array @ (np.eye(3) + 0.1 * np.eye(3, k=1)), scale_atoms=True)
    difference = net(graph(atoms, dtype)).shares - net(graph(sheared, dtype)).shares
    assert difference.abs().max() > 1e-3


def test_translation_and_wrapping(dtype: torch.dtype) -> None:
    net, atoms = network(dtype), crystal()
    moved = atoms.copy()
    moved.positions += [1.234, -0.7, 2.2]
    moved.wrap()
    assert_same(net(graph(moved, dtype)), net(graph(atoms, dtype)), TOLERANCE[dtype])


def test_permutation_permutes_the_sites(dtype: torch.dtype) -> None:
    net, atoms = network(dtype), crystal()
    order = [2, 0, 3, 1]
    one, other = net(graph(atoms, dtype)), net(graph(atoms[order], dtype))
    assert_same(other, one, TOLERANCE[dtype])
    torch.testing.assert_close(other.site_shares, one.site_shares[order], atol=TOLERANCE[dtype], rtol=0.0)


@pytest.mark.parametrize("repeat", [(2, 1, 1), (1, 2, 2)])
def test_supercell(dtype: torch.dtype, repeat: tuple[int, int, int]) -> None:
    net, atoms = network(dtype), crystal()
    assert_same(net(graph(atoms.repeat(repeat), dtype)), net(graph(atoms, dtype)), TOLERANCE[dtype])


def test_another_choice_of_cell_is_the_same_crystal(dtype: torch.dtype) -> None:
    net, atoms = network(dtype), crystal()
    other = atoms.copy()
    other.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]]) @ atoms.cell.array, scale_atoms=False)
    assert_same(net(graph(other, dtype)), net(graph(atoms, dtype)), TOLERANCE[dtype])


def test_crystals_side_by_side_do_not_see_each_other(dtype: torch.dtype) -> None:
    net = network(dtype)
    graphs = [graph(crystal(), dtype), graph(bulk("MgO", "rocksalt", a=4.21), dtype)]
    together = net(side_by_side(graphs))
    for index, alone in enumerate(graphs):
        torch.testing.assert_close(together.shares[index], net(alone).shares[0], atol=TOLERANCE[dtype], rtol=0.0)


def test_messages_fade_smoothly_at_the_cutoff() -> None:
    """A neighbour that crosses the cut-off must not make the answer jump."""
    net = network(torch.float64)

    def shares(distance: float) -> torch.Tensor:
        chain = Atoms("MgO", positions=[(0, 0, 0), (distance, 0, 0)], cell=[2.0 * distance, 4.0, 4.0], pbc=True)
        return net(graph(chain, torch.float64)).shares

    inside, outside = shares(5.0 - 1e-4), shares(5.0 + 1e-4)
    assert (inside - outside).abs().max() < 1e-3 * (shares(4.6) - outside).abs().max()
