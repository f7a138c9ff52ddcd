"""The ensemble: one network, several sets of weights, and the files they are shipped in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from beamline_ml.phonons.graph import CrystalGraph
from beamline_ml.phonons.network import NetworkOutput, NetworkShape, PhononNetwork

MemberWeights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class EnsembleOutput:
    """What every member says; the first axis counts members."""

    site_shares: Tensor
    """(n_members, n_atoms, 72)."""
    shares: Tensor
    """(n_members, n_crystals, 72)."""
    points: Tensor
    """(n_members, n_crystals, 51)."""
    invariants: Tensor
    """(n_crystals, n) of the first member: the network's description of each crystal."""


class Ensemble:
    """Members that share an architecture; called on a graph, each gives its own answer."""

    def __init__(
        self, shape: NetworkShape, members: Sequence[MemberWeights], dtype: torch.dtype = torch.float32
    ) -> None:
        self.network = PhononNetwork(shape).to(dtype).eval().requires_grad_(False)
        self.shape = shape
        expected = set(self.network.state_dict())
        for member in members:
            if set(member) != expected:
                raise ValueError(f"weights do not fit the network: {sorted(set(member) ^ expected)[:4]}")
        self.members = [{name: value.to(dtype) for name, value in member.items()} for member in members]
        self._stacked = {name: torch.stack([member[name] for member in self.members]) for name in self.members[0]}

    def __call__(self, graph: CrystalGraph) -> EnsembleOutput:
        """Outputs of all members for every crystal in the graph."""

        def one(weights: MemberWeights) -> tuple[Tensor, ...]:
            output: NetworkOutput = functional_call(self.network, weights, (graph,))
            return output.site_shares, output.shares, output.points, output.invariants

        # All members in one pass: small crystals cost calls, not arithmetic, and this makes a third of the calls.
        with torch.no_grad():
            site_shares, shares, points, invariants = vmap(one)(self._stacked)
        return EnsembleOutput(site_shares, shares, points, invariants[0])


def pack(members: Sequence[MemberWeights], dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Weights of all members as one flat dictionary for a safetensors file, in half precision (1 part in 2,000)."""
    return {
        f"member{index}.{name}": value.to(dtype).contiguous()
        for index, member in enumerate(members)
        for name, value in member.items()
    }


def unpack(tensors: dict[str, Tensor]) -> list[MemberWeights]:
    """Weights of each member from a flat dictionary that ``pack`` made."""
    members: dict[int, MemberWeights] = {}
    for name, value in tensors.items():
        if name.startswith("member"):
            number, _, parameter = name.partition(".")
            members.setdefault(int(number.removeprefix("member")), {})[parameter] = value.float()
    return [members[index] for index in sorted(members)]
