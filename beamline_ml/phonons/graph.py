"""Crystals as graphs: atoms are nodes, every pair of atoms (and periodic images) closer than the cut-off is an edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from vesin import NeighborList

from beamline_ml.phonons.elements import radii
from beamline_ml.records import Float64Array, IntArray

CUTOFF_ANGSTROM = 5.0


@dataclass(frozen=True, slots=True)
class CrystalGraph:
    """One crystal, or several side by side that share no edge."""

    numbers: Tensor
    """(n_atoms,) int64 atomic numbers."""
    sender: Tensor
    """(n_edges,) int64 atom that the message comes from."""
    receiver: Tensor
    """(n_edges,) int64 atom that the message goes to."""
    slot: Tensor
    """(n_edges,) int64 place of the edge among those of its receiver, from 0."""
    vectors: Tensor
    """(n_edges, 3) from receiver to sender (nearest or farther image) in angstrom."""
    crystal: Tensor
    """(n_atoms,) int64 which crystal an atom belongs to."""
    n_crystals: int


def build_graph(
    numbers: IntArray, positions: Float64Array, cell: Float64Array, dtype: torch.dtype = torch.float32
) -> CrystalGraph:
    """Graph of one periodic crystal.

    Parameters
    ----------
    numbers
        (n_atoms,) atomic numbers.
    positions
        (n_atoms, 3) Cartesian positions in angstrom.
    cell
        (3, 3) lattice vectors as rows, in angstrom.
    dtype
        Of the edge vectors; distances are always found in float64.
    """
    finder = NeighborList(cutoff=CUTOFF_ANGSTROM, full_list=True)
    receiver, sender, vectors = finder.compute(
        points=np.ascontiguousarray(positions, dtype=np.float64),
        box=np.ascontiguousarray(cell, dtype=np.float64),
        periodic=True,
        quantities="ijD",
    )
    order = np.argsort(receiver, kind="stable")
    receiver = np.asarray(receiver, dtype=np.int64)[order]
    first = np.searchsorted(receiver, receiver)
    return CrystalGraph(
        numbers=torch.as_tensor(np.asarray(numbers, dtype=np.int64)),
        sender=torch.as_tensor(np.asarray(sender, dtype=np.int64)[order]),
        receiver=torch.as_tensor(receiver),
        slot=torch.as_tensor(np.arange(len(receiver)) - first),
        vectors=torch.as_tensor(np.asarray(vectors)[order]).to(dtype),
        crystal=torch.zeros(len(numbers), dtype=torch.int64),
        n_crystals=1,
    )


def bond_ratios(graph: CrystalGraph) -> Float64Array:
    """(n_atoms,) distance to the nearest neighbour over the sum of the covalent radii; infinite without neighbours."""
    radius = torch.as_tensor(radii(), dtype=torch.float64)
    reach = radius[graph.numbers[graph.sender]] + radius[graph.numbers[graph.receiver]]
    ratio = graph.vectors.double().norm(dim=1) / reach
    nearest = torch.full((len(graph.numbers),), torch.inf, dtype=torch.float64)
    ratios: Float64Array = nearest.scatter_reduce(0, graph.receiver, ratio, "amin").numpy()
    return ratios


def side_by_side(graphs: Sequence[CrystalGraph]) -> CrystalGraph:
    """Several single-crystal graphs as one, in order."""
    counts = torch.tensor([len(graph.numbers) for graph in graphs])
    starts = torch.cumsum(counts, 0) - counts
    return CrystalGraph(
        numbers=torch.cat([graph.numbers for graph in graphs]),
        sender=torch.cat([graph.sender + start for graph, start in zip(graphs, starts, strict=True)]),
        receiver=torch.cat([graph.receiver + start for graph, start in zip(graphs, starts, strict=True)]),
        slot=torch.cat([graph.slot for graph in graphs]),
        vectors=torch.cat([graph.vectors for graph in graphs]),
        crystal=torch.repeat_interleave(torch.arange(len(graphs)), counts),
        n_crystals=len(graphs),
    )
