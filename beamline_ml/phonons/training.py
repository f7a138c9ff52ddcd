"""Training one member of the ensemble, epoch by epoch, so that whoever calls can log, stop and resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.graph import CrystalGraph, build_graph, side_by_side
from beamline_ml.phonons.loss import DensityLoss, LossWeights, Targets
from beamline_ml.phonons.network import NetworkOutput, NetworkShape, PhononNetwork


@dataclass(frozen=True, slots=True)
class Finish:
    """The last stage: the head alone, on what the rest of the network says of each crystal (seconds per member).

    The first stage is ruled by the transport distance, which places peaks but blurs them; this one sharpens them.
    """

    epochs: int = 16
    batch_size: int = 32
    peak_learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    averaging: float = 0.97
    loss: LossWeights = field(
        default_factory=lambda: LossWeights(points=0.7, renormalised=0.3, transport=0.25, thermal=0.02)
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one member is trained; the same recipe and seed give the same weights."""

    epochs: int = 28
    batch_size: int = 16
    peak_learning_rate: float = 4e-3
    weight_decay: float = 1e-3
    gradient_norm: float = 1.0
    averaging: float = 0.99
    """Weight of the past in the exponential moving average of the weights, which is what ships."""
    jitter_angstrom: float = 0.0
    """Standard deviation of the random displacements of atoms while training."""
    loss: LossWeights = field(default_factory=LossWeights)
    finish: Finish = field(default_factory=Finish)
    shape: NetworkShape = field(default_factory=NetworkShape)

    def to_dict(self) -> dict[str, object]:
        """The recipe as plain values."""
        return asdict(self)


class TrainingSet:
    """Graphs and targets of some materials, built once."""

    def __init__(self, materials: Sequence[Material]) -> None:
        self.graphs = [build_graph(m.numbers, m.positions, m.cell) for m in materials]
        self.targets = Targets.of(list(materials))
        self.rows = tuple(m.row for m in materials)

    def __len__(self) -> int:
        return len(self.graphs)

    def batch(self, index: Tensor) -> tuple[CrystalGraph, Targets]:
        """Some of the materials as one graph with their targets."""
        return side_by_side([self.graphs[i] for i in index.tolist()]), self.targets.rows(index)


class MemberTraining:
    """State of the training of one member: network, optimiser, schedule, average; advanced one epoch at a time."""

    def __init__(self, data: TrainingSet, recipe: Recipe, seed: int) -> None:
        torch.manual_seed(seed)
        self.data, self.recipe, self.seed = data, recipe, seed
        self.network = PhononNetwork(recipe.shape)
        _start_from_mean(self.network, data.targets.shares)
        self.loss = DensityLoss(recipe.loss)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.peak_learning_rate, weight_decay=recipe.weight_decay
        )
        self.steps_per_epoch = -(-len(data) // recipe.batch_size)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.peak_learning_rate, total_steps=recipe.epochs * self.steps_per_epoch + 1
        )
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.epoch = 0

    @property
    def finished(self) -> bool:
        """Whether all epochs of the recipe are done."""
        return self.epoch >= self.recipe.epochs

    def run_epoch(self) -> float:
        """Train on every material once, in an order fixed by seed and epoch; returns the mean loss.

        Seeding each epoch anew makes an interrupted training end with the same weights as an uninterrupted one.
        """
        torch.manual_seed(1_000_003 * self.seed + self.epoch)
        permutation = torch.randperm(len(self.data))
        losses = [self._step(index) for index in permutation.split(self.recipe.batch_size)]
        self.epoch += 1
        return sum(losses) / len(losses)

    def _step(self, index: Tensor) -> float:
        graph, targets = self.data.batch(index)
        graph = _jittered(graph, self.recipe.jitter_angstrom)
        self.optimizer.zero_grad()
        loss = self.loss(self.network(graph), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.gradient_norm)
        self.optimizer.step()
        self.schedule.step()
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1.0 - self.recipe.averaging)
        return float(loss.detach())

    def averaged_network(self) -> PhononNetwork:
        """The network that ships: the moving average of the weights."""
        network = PhononNetwork(self.recipe.shape)
        network.load_state_dict(self.average)
        return network.eval()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything needed to go on from here: tensors by name, and plain numbers."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for index, moments in optimizer["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        schedule = {k: v for k, v in self.schedule.state_dict().items() if isinstance(v, int | float | str | list)}
        return tensors, {"epoch": self.epoch, "groups": optimizer["param_groups"], "schedule": schedule}

    def resume(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Go on from a state that ``state`` gave."""
        self.network.load_state_dict(_under("network.", tensors))
        self.average = _under("average.", tensors)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = value
        self.optimizer.load_state_dict({"state": moments, "param_groups": numbers["groups"]})
        self.schedule.load_state_dict(dict(numbers["schedule"]))
        self.epoch = int(numbers["epoch"])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value.clone() for name, value in tensors.items() if name.startswith(prefix)}


def _jittered(graph: CrystalGraph, sigma_angstrom: float) -> CrystalGraph:
    """The graph with every atom (and all its images) displaced at random."""
    if sigma_angstrom == 0.0:
        return graph
    shift = sigma_angstrom * torch.randn(len(graph.numbers), 3)
    return replace(graph, vectors=graph.vectors + shift[graph.sender] - shift[graph.receiver])


def finish_head(network: PhononNetwork, data: TrainingSet, finish: Finish, seed: int) -> dict[str, Tensor]:
    """Train the head alone and return the weights of the whole network; deterministic in the seed."""
    torch.manual_seed(1_000_003 * seed + 999_983)
    with torch.no_grad():
        described = [network.describe(graph) for graph in data.graphs]
    atoms = [_without_edges(graph) for graph in data.graphs]
    loss, head = DensityLoss(finish.loss), network.head
    steps = finish.epochs * -(-len(data) // finish.batch_size)
    optimizer = torch.optim.AdamW(head.parameters(), lr=finish.peak_learning_rate, weight_decay=finish.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, finish.peak_learning_rate, total_steps=steps + 1)
    average = {name: value.clone() for name, value in head.state_dict().items()}
    for index in (i for _ in range(finish.epochs) for i in torch.randperm(len(data)).split(finish.batch_size)):
        features, element = (torch.cat(parts) for parts in zip(*(described[i] for i in index.tolist()), strict=True))
        optimizer.zero_grad()
        output = head(features, element, side_by_side([atoms[i] for i in index.tolist()]))
        loss(output, data.targets.rows(index)).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for name, value in head.state_dict().items():
            average[name].lerp_(value, 1.0 - finish.averaging)
    head.load_state_dict(average)
    return {name: value.clone() for name, value in network.state_dict().items()}


def _without_edges(graph: CrystalGraph) -> CrystalGraph:
    none = graph.sender[:0]
    return replace(graph, sender=none, receiver=none, slot=none, vectors=graph.vectors[:0])


@torch.no_grad()
def predict(network: PhononNetwork, data: TrainingSet, batch_size: int = 32) -> NetworkOutput:
    """Outputs for every material of a set, in order."""
    batches = torch.arange(len(data)).split(batch_size)
    parts = [network(data.batch(index)[0]) for index in batches]
    return NetworkOutput(
        *(
            torch.cat([getattr(part, name) for part in parts])
            for name in ("site_shares", "shares", "points", "invariants")
        )
    )


def _start_from_mean(network: PhononNetwork, shares: Tensor) -> None:
    """Begin at the mean density of states of the training set: the first epochs need not find it."""
    with torch.no_grad():
        network.head.windows.weight.mul_(0.3)
        network.head.windows.bias.copy_(torch.log(shares.mean(dim=0) + 1e-5))
