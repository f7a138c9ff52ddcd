"""Replay of the ranking: does measuring what we rank first teach more than measuring at random?

Starting from a quarter of the training rows, five times sixty rows are added, by our ranking and at random, and an
ensemble is trained anew each time; the error on the held-out rows at the end is compared, for three seeds.

``make bench ROOM=guidance`` replays with a kernel model of the composition in the place of the network (ten seconds a
seed). ``python -m tests.benchmarks.bench_ranking [--epochs 28] [--members 3] [--seeds 0 1 2]`` takes the network:
with the full recipe a quarter of an hour a seed on one core. Fewer epochs make both sides worse; the row's name says
how many there were.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from beamline_ml.guidance import greedy_ranking
from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.elements import descriptors
from beamline_ml.phonons.training import MemberTraining, Recipe, TrainingSet, finish_head, predict
from beamline_ml.service.phonon_data import load_materials
from tests.benchmarks.__main__ import keep, show
from tests.benchmarks.rows import Row, row

START_SHARE, ROUNDS, PER_ROUND = 0.25, 5, 60
SEEDS = (0, 1, 2)
NOISE = 0.1
"""Standard deviation of a measured point of the density, whose maximum is 1."""
KERNEL_MEMBERS, KERNEL_FEATURES, KERNEL_RATE, KERNEL_RIDGE = 16, 600, 0.3, 0.3

Learner = Callable[[Sequence[Material], Sequence[Material], int], np.ndarray]
"""Known materials, asked ones and a seed in; (n_members, n_asked, 51) points out."""


def rows() -> list[Row]:
    """The replay with the kernel model."""
    gains = [gain(_materials(), seed, kernel_model) for seed in SEEDS]
    return [_gain_row("ranking_gain_kernel_model", gains)]


def gain(materials: Sequence[Material], seed: int, learner: Learner) -> float:
    """Part of the error that our choice takes off what random choice leaves."""
    by_chance, ours = (replayed_mse(materials, seed, learner, ranked) for ranked in (False, True))
    print(f"seed {seed}: at random {by_chance:.5f}, ranked {ours:.5f}", flush=True)
    return 1.0 - ours / by_chance


def replayed_mse(materials: Sequence[Material], seed: int, learner: Learner, ranked: bool) -> float:
    """Error on the held-out rows after all rounds."""
    pool = [m for m in materials if not m.held_out]
    held_out = [m for m in materials if m.held_out]
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(pool))[: round(START_SHARE * len(pool))].tolist()
    for _ in range(ROUNDS):
        left = np.setdiff1d(np.arange(len(pool)), chosen)
        if not ranked:
            chosen += rng.choice(left, PER_ROUND, replace=False).tolist()
            continue
        points = learner([pool[i] for i in chosen], [pool[i] for i in left], seed)
        chosen += left[greedy_ranking(points, NOISE, np.ones(len(left)), PER_ROUND).order].tolist()
    last = learner([pool[i] for i in chosen], held_out, seed)
    return float(((last.mean(axis=0) - np.stack([m.points for m in held_out])) ** 2).mean())


def kernel_model(known: Sequence[Material], asked: Sequence[Material], seed: int) -> np.ndarray:
    """Ridge regression on random Fourier features of the composition; members differ in features and bootstrap."""
    x, x_asked = _composition(known), _composition(asked)
    middle, width = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, x_asked = (x - middle) / width, (x_asked - middle) / width
    y = np.stack([m.points for m in known])
    found = []
    for member in range(KERNEL_MEMBERS):
        rng = np.random.default_rng(1000 * seed + member)
        turn = rng.normal(0.0, KERNEL_RATE, (x.shape[1], KERNEL_FEATURES))
        phase = rng.uniform(0.0, 2.0 * np.pi, KERNEL_FEATURES)
        pick = rng.integers(0, len(x), len(x))
        a = np.sqrt(2.0 / KERNEL_FEATURES) * np.cos(x[pick] @ turn + phase)
        weight = np.linalg.solve(a.T @ a + KERNEL_RIDGE * np.eye(KERNEL_FEATURES), a.T @ (y[pick] - y.mean(axis=0)))
        found.append(np.sqrt(2.0 / KERNEL_FEATURES) * np.cos(x_asked @ turn + phase) @ weight + y.mean(axis=0))
    return np.stack(found)


def _composition(materials: Sequence[Material]) -> np.ndarray:
    """(n, n_features) mean, spread and extremes of the elements' facts, volume per atom, number of atoms."""
    facts, found = descriptors(), []
    for material in materials:
        mine = facts[material.numbers]
        volume = abs(np.linalg.det(material.cell)) / len(mine)
        size = [np.log(volume), np.log(len(mine)) / 3.0]
        found.append(np.concatenate([mine.mean(axis=0), mine.std(axis=0), mine.min(axis=0), mine.max(axis=0), size]))
    return np.array(found)


def network(recipe: Recipe, n_members: int) -> Learner:
    """The network itself, trained by a recipe."""

    def learner(known: Sequence[Material], asked: Sequence[Material], seed: int) -> np.ndarray:
        data, wanted, found = TrainingSet(known), TrainingSet(asked), []
        for member in range(n_members):
            training = MemberTraining(data, recipe, 100 * seed + member)
            while not training.finished:
                training.run_epoch()
            trained = training.averaged_network()
            trained.load_state_dict(finish_head(trained, data, recipe.finish, seed))
            found.append(predict(trained.eval(), wanted).points.double().numpy())
        return np.stack(found)

    return learner


def _materials() -> list[Material]:
    folder = Path(os.environ.get("BEAMLINE_ML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    return load_materials(folder / "phonon")


def _gain_row(name: str, gains: Sequence[float]) -> Row:
    return row(name, float(np.mean(gains)), f"of MSE, {len(gains)} seeds", 0.05, "limit (at least)")


def main() -> None:
    """Replay with the network, seed by seed; every finished seed is kept in ``benchmarks.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    told = parser.parse_args()
    torch.set_num_threads(1)
    learner = network(replace(Recipe(), epochs=told.epochs), told.members)
    name = "ranking_gain" if told.epochs == Recipe().epochs else f"ranking_gain_{told.epochs}_epochs"
    gains: list[float] = []
    for seed in told.seeds:
        gains.append(gain(_materials(), seed, learner))
        kept = [_gain_row(name, gains)]
        keep(kept)
        show(kept)


if __name__ == "__main__":
    main()
