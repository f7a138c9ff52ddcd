"""The network: an E(3)-equivariant message-passing net in which every atom hands out its own three modes.

Each atom's final scalars pass through a softmax over the energy windows, so an atom owns exactly three modes wherever
it puts them. The mean over atoms is the density of states per mode: its integral is 3N by construction, and the
site-projected densities come for free. Built on e3nn (Geiger & Smidt, arXiv:2207.09453); the idea of predicting
phonon densities with such a network is Chen et al., Adv. Sci. 8, 2004214 (2021).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from e3nn import o3
from e3nn.nn import Gate
from torch import Tensor, nn

from beamline_ml.phonons.elements import MAX_ATOMIC_NUMBER, descriptors, masses_u, radii
from beamline_ml.phonons.graph import CUTOFF_ANGSTROM, CrystalGraph
from beamline_ml.phonons.windows import N_WINDOWS, POINTS_INV_CM, published_points_matrix

_PAIR_FEATURES = 8
_MEAN_NEIGHBOURS = 29.0
_HARMONICS = (o3.Irrep("0e"), o3.Irrep("1o"), o3.Irrep("2e"))


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """How large a member of the ensemble is."""

    n_scalars: int = 64
    n_vectors: int = 32
    n_tensors: int = 16
    """Rank-2 features per atom."""
    n_bessel: int = 10
    radial_width: int = 64
    head_width: int = 128
    dropout: float = 0.0
    """Share of the head's hidden units left out at random while training."""
    element_dropout: float = 0.0
    """Share of the elements whose learned embedding is blanked while training, so that tabulated facts must carry."""

    @property
    def channels(self) -> list[int]:
        """Channels of rank 0, 1, 2 in which neighbourhoods are expanded."""
        return [self.n_scalars, 3 * self.n_vectors // 2, 2 * self.n_tensors]

    def to_dict(self) -> dict[str, float]:
        """The shape as plain numbers, for a weights file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NetworkOutput:
    """What one forward pass says."""

    site_shares: Tensor
    """(n_atoms, 72) where each atom puts its three modes; rows sum to 1."""
    shares: Tensor
    """(n_crystals, 72) share of the 3N modes in each window; rows sum to 1."""
    points: Tensor
    """(n_crystals, 51) the published convention, scaled to the size at which the squared error is least."""
    invariants: Tensor
    """(n_crystals, n_scalars) mean of the last layer's scalars: what the network saw of the crystal."""


class PhononNetwork(nn.Module):
    """Crystal graph in, densities of states out."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.elements = ElementFeatures(dropout=shape.element_dropout)
        self.edges = EdgeFeatures(shape.n_bessel)
        hidden = o3.Irreps(f"{shape.n_scalars}x0e + {shape.n_vectors}x1o + {shape.n_tensors}x2e")
        self.start = nn.Linear(self.elements.width, shape.n_scalars)
        self.expansion = Expansion(shape, hidden, self.edges.width)
        self.contraction = Contraction(shape, hidden, self.edges.width)
        self.head = Head(2 * shape.n_scalars, self.elements.width, shape.head_width, shape.dropout)

    def forward(self, graph: CrystalGraph) -> NetworkOutput:
        """Densities of states of every crystal in the graph."""
        return self.head(*self.describe(graph), graph)

    def describe(self, graph: CrystalGraph) -> tuple[Tensor, Tensor]:
        """(n_atoms, 2 n_scalars) invariants and (n_atoms, width) element features: what the head works from."""
        element = self.elements(graph.numbers)
        attributes = self.elements.attributes(element)
        edge = self.edges(graph, attributes)
        features = self.expansion(self.start(element), attributes, edge, graph)
        return self.contraction(features, attributes, edge, graph), element


@dataclass(frozen=True, slots=True)
class EdgeInput:
    """What messages are made of."""

    features: Tensor
    """(n_edges, width) distances and what the two elements are."""
    envelope: Tensor
    """(n_edges, 1) takes messages to zero at the cut-off."""
    harmonics: Tensor
    """(n_edges, 9) spherical harmonics of rank 0, 1, 2 of the direction."""


class ElementFeatures(nn.Module):
    """Tabulated facts of an element beside a learned embedding."""

    def __init__(self, n_learned: int = 24, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        facts = torch.as_tensor(descriptors(), dtype=torch.get_default_dtype())
        self.facts: Tensor
        self.register_buffer("facts", facts, persistent=False)
        self.learned = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_learned)
        nn.init.normal_(self.learned.weight, std=0.3)
        self.width = facts.shape[1] + n_learned
        self.attributes = nn.Sequential(nn.Linear(self.width, _PAIR_FEATURES), nn.Tanh())

    def forward(self, numbers: Tensor) -> Tensor:
        """(n_atoms, width) features."""
        learned = self.learned.weight
        if self.training and self.dropout:
            learned = learned * (torch.rand(len(learned), 1) >= self.dropout)
        return torch.cat([self.facts[numbers], learned[numbers]], dim=1)


class EdgeFeatures(nn.Module):
    """Distances of a pair, bare and against the sum of covalent radii, with what the two elements are."""

    def __init__(self, n_bessel: int) -> None:
        super().__init__()
        dtype = torch.get_default_dtype()
        self.wave_numbers: Tensor
        self.radii: Tensor
        self.masses: Tensor
        self.register_buffer("wave_numbers", torch.arange(1, n_bessel + 1, dtype=dtype) * torch.pi, persistent=False)
        self.register_buffer("radii", torch.as_tensor(radii(), dtype=dtype), persistent=False)
        self.register_buffer("masses", torch.as_tensor(masses_u(), dtype=dtype).clamp(min=1.0), persistent=False)
        self.width = n_bessel + 3 + 2 * _PAIR_FEATURES

    def forward(self, graph: CrystalGraph, attributes: Tensor) -> EdgeInput:
        """Features, envelope and harmonics of every edge."""
        distance = graph.vectors.norm(dim=1, keepdim=True)
        reduced = distance / CUTOFF_ANGSTROM
        bessel = torch.sin(self.wave_numbers * reduced) / reduced
        i, j = graph.numbers[graph.receiver], graph.numbers[graph.sender]
        bond = distance / (self.radii[i] + self.radii[j]).unsqueeze(1)
        stiffness = torch.exp(-2.0 * (bond - 1.0))
        mass = torch.log(1.0 / self.masses[i] + 1.0 / self.masses[j]).unsqueeze(1) / 2.0 + 1.2
        pair = torch.cat([attributes[graph.receiver], attributes[graph.sender]], dim=1)
        features = torch.cat([bessel, bond - 1.5, stiffness, mass, pair], dim=1)
        harmonics = o3.spherical_harmonics([0, 1, 2], graph.vectors, normalize=True, normalization="component")
        return EdgeInput(features, _envelope(reduced), harmonics)


def _envelope(reduced: Tensor, power: int = 6) -> Tensor:
    """Polynomial cut-off with two vanishing derivatives (Gasteiger et al., arXiv:2003.03123, eq. 8)."""
    a, b, c = (power + 1) * (power + 2) / 2.0, power * (power + 2.0), power * (power + 1) / 2.0
    value = 1.0 - a * reduced**power + b * reduced ** (power + 1) - c * reduced ** (power + 2)
    return torch.where(reduced < 1.0, value, torch.zeros_like(value))


class Expansion(nn.Module):
    """First round of messages: each atom's neighbourhood in spherical harmonics, weighted by a radial network."""

    def __init__(self, shape: NetworkShape, hidden: o3.Irreps, n_edge: int) -> None:
        super().__init__()
        self.channels = shape.channels
        self.gate, before_gate = _gate(hidden)
        scalars, attributes = o3.Irreps(f"{shape.n_scalars}x0e"), o3.Irreps(f"{_PAIR_FEATURES}x0e")
        expanded = o3.Irreps([(mul, ir) for mul, ir in zip(self.channels, _HARMONICS, strict=True)])
        self.before = nn.Linear(shape.n_scalars, sum(self.channels))
        self.radial = _radial_network(n_edge, shape.radial_width, sum(self.channels))
        self.after = o3.Linear(expanded, before_gate)
        self.itself = o3.FullyConnectedTensorProduct(scalars, attributes, before_gate)

    def forward(self, features: Tensor, attributes: Tensor, edge: EdgeInput, graph: CrystalGraph) -> Tensor:
        """(n_atoms, hidden) features after the messages have arrived."""
        weights = self.radial(edge.features) * edge.envelope
        messages = _by_receiver(self.before(features)[graph.sender] * weights, graph).transpose(1, 2)
        harmonics = _by_receiver(edge.harmonics, graph)
        # The sum over neighbours of message x harmonic is one small matrix product per atom: no edge's outer product
        # is ever stored.
        parts = [
            torch.bmm(message, harmonic).flatten(1)
            for message, harmonic in zip(
                messages.split(self.channels, dim=1), harmonics.split([ir.dim for ir in _HARMONICS], dim=2), strict=True
            )
        ]
        arrived = torch.cat(parts, dim=1) / _MEAN_NEIGHBOURS**0.5
        return self.gate(self.after(arrived) + self.itself(features, attributes))


class Contraction(nn.Module):
    """Second round: neighbours' scalars, vectors and tensors projected on the bond become scalars again."""

    def __init__(self, shape: NetworkShape, hidden: o3.Irreps, n_edge: int) -> None:
        super().__init__()
        self.blocks = [(mul, ir.dim) for mul, ir in hidden]
        n_out, n_channels = 2 * shape.n_scalars, sum(mul for mul, _ in self.blocks)
        attributes = o3.Irreps(f"{_PAIR_FEATURES}x0e")
        self.before = o3.Linear(hidden, hidden)
        self.radial = _radial_network(n_edge, shape.radial_width, n_channels)
        self.after = nn.Linear(n_channels, n_out)
        self.norms = nn.Linear(n_channels - shape.n_scalars, n_out)
        self.itself = o3.FullyConnectedTensorProduct(
            o3.Irreps(f"{shape.n_scalars}x0e"), attributes, o3.Irreps(f"{n_out}x0e")
        )

    def forward(self, features: Tensor, attributes: Tensor, edge: EdgeInput, graph: CrystalGraph) -> Tensor:
        """(n_atoms, 2 n_scalars) invariants."""
        sent = self._projected(self.before(features)[graph.sender], edge.harmonics)
        messages = sent * self.radial(edge.features) * edge.envelope
        arrived = messages.new_zeros(len(features), messages.shape[1]).index_add(0, graph.receiver, messages)
        scalars = features[:, : self.blocks[0][0]]
        mixed = self.after(arrived / _MEAN_NEIGHBOURS**0.5) + self.norms(self._squared_norms(features))
        return torch.nn.functional.silu(mixed + self.itself(scalars, attributes))

    def _projected(self, sent: Tensor, harmonics: Tensor) -> Tensor:
        """(n_edges, n_channels) inner product of every feature with the harmonics of its rank."""
        parts = sent.split([mul * dim for mul, dim in self.blocks], dim=1)
        angles = harmonics.split([dim for _, dim in self.blocks], dim=1)
        return torch.cat(
            [
                part if dim == 1 else (part.view(-1, mul, dim) * angle.unsqueeze(1)).sum(dim=2) / dim**0.5
                for part, angle, (mul, dim) in zip(parts, angles, self.blocks, strict=True)
            ],
            dim=1,
        )

    def _squared_norms(self, features: Tensor) -> Tensor:
        """(n_atoms, n) squared lengths of the vectors and tensors: the angles within the atom's own neighbourhood."""
        parts = features.split([mul * dim for mul, dim in self.blocks], dim=1)[1:]
        return torch.cat(
            [
                part.view(-1, mul, dim).square().mean(dim=2)
                for part, (mul, dim) in zip(parts, self.blocks[1:], strict=True)
            ],
            dim=1,
        )


def _by_receiver(values: Tensor, graph: CrystalGraph) -> Tensor:
    """(n_atoms, most_neighbours, k) of (n_edges, k): the edges of each atom side by side, zeros behind them."""
    width = int(graph.slot.max()) + 1
    place = graph.receiver * width + graph.slot
    flat = values.new_zeros(len(graph.numbers) * width, values.shape[1]).index_copy(0, place, values)
    return flat.view(len(graph.numbers), width, values.shape[1])


def _radial_network(n_in: int, width: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_out))


def _gate(target: o3.Irreps) -> tuple[Gate, o3.Irreps]:
    """Gate whose output is ``target``, and the irreps it wants."""
    scalars = o3.Irreps([(mul, ir) for mul, ir in target if ir.l == 0])
    others = o3.Irreps([(mul, ir) for mul, ir in target if ir.l > 0])
    gates = o3.Irreps([(mul, "0e") for mul, _ in others]).simplify()
    gate = Gate(scalars, [torch.nn.functional.silu], gates, [torch.sigmoid], others)
    return gate, gate.irreps_in


class Head(nn.Module):
    """Atoms' scalars, and their mean over the crystal, to modes per window."""

    def __init__(self, n_scalars: int, n_element: int, width: int, dropout: float) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Linear(2 * n_scalars + n_element, width), nn.SiLU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout),
        )  # fmt: skip
        self.windows = nn.Linear(width, N_WINDOWS)
        self.correction = nn.Linear(width, len(POINTS_INV_CM))
        self.size = nn.Linear(width, 1)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)
        matrix = torch.as_tensor(published_points_matrix(), dtype=torch.get_default_dtype())
        self.matrix: Tensor
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, features: Tensor, element: Tensor, graph: CrystalGraph) -> NetworkOutput:
        """Densities of states; see NetworkOutput."""
        invariants = mean_over_atoms(features, graph)
        hidden = self.mix(torch.cat([features, invariants[graph.crystal], element], dim=1))
        site_shares = torch.softmax(self.windows(hidden), dim=1)
        shares = mean_over_atoms(site_shares, graph)
        pooled = mean_over_atoms(hidden, graph)
        points = self._published_points(shares, pooled)
        return NetworkOutput(site_shares, shares, points, invariants)

    def _published_points(self, shares: Tensor, pooled: Tensor) -> Tensor:
        """Smooth the shares as the published curves were, then the size (at most 1.1) that makes the squared error
        least."""
        smooth = shares @ self.matrix.T
        smooth = smooth / smooth.amax(dim=1, keepdim=True)
        corrected = torch.relu(smooth + self.correction(pooled))
        scaled = corrected / corrected.amax(dim=1, keepdim=True).clamp(min=1e-3)
        return 1.1 * torch.sigmoid(self.size(pooled) + 2.0) * scaled


def mean_over_atoms(values: Tensor, graph: CrystalGraph) -> Tensor:
    """(n_crystals, k) mean over each crystal's atoms of (n_atoms, k) values."""
    total = values.new_zeros(graph.n_crystals, values.shape[1]).index_add(0, graph.crystal, values)
    count = torch.bincount(graph.crystal, minlength=graph.n_crystals).to(values.dtype)
    return total / count.unsqueeze(1)
