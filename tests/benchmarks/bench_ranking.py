"""Replay of the ranking: ``python -m tests.benchmarks.bench_ranking [--epochs 28] [--members 2] [--seeds 0 1 2]``.

Starting from a quarter of the training rows, five times sixty rows are added, by our ranking and at random, and the
ensemble is trained anew each time; the error on the held-out rows at the end is compared. With the full recipe one seed
takes most of an hour on one core, so this is no part of ``make bench``: every finished seed is printed and kept in
``benchmarks.json``. Fewer epochs make it faster and both sides worse; the row's name says how many were used.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from beamline_ml.guidance import greedy_ranking
from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.training import MemberTraining, Recipe, TrainingSet, finish_head, predict
from beamline_ml.service.phonon_data import load_materials
from tests.benchmarks.__main__ import keep, show
from tests.benchmarks.bench_guidance import row

START_SHARE, ROUNDS, PER_ROUND = 0.25, 5, 60
NOISE = 0.1
"""Standard deviation of a measured point of the density, whose maximum is 1."""


def trained_points(
    materials: Sequence[Material], asked: TrainingSet, recipe: Recipe, seed: int, n_members: int
) -> np.ndarray:
    """(n_members, n_asked, 51) what an ensemble trained on some materials predicts for others."""
    data, found = TrainingSet(materials), []
    for member in range(n_members):
        training = MemberTraining(data, recipe, 100 * seed + member)
        while not training.finished:
            training.run_epoch()
        network = training.averaged_network()
        network.load_state_dict(finish_head(network, data, recipe.finish, seed))
        found.append(predict(network.eval(), asked).points.double().numpy())
    return np.stack(found)


def replayed_mse(materials: Sequence[Material], seed: int, recipe: Recipe, n_members: int, ranked: bool) -> float:
    """Error on the held-out rows after all rounds."""
    pool = [m for m in materials if not m.held_out]
    held_out = [m for m in materials if m.held_out]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool))
    chosen = order[: round(START_SHARE * len(pool))].tolist()
    for _ in range(ROUNDS):
        left = np.setdiff1d(np.arange(len(pool)), chosen)
        if not ranked:
            chosen += rng.choice(left, PER_ROUND, replace=False).tolist()
            continue
        asked = TrainingSet([pool[i] for i in left])
        points = trained_points([pool[i] for i in chosen], asked, recipe, seed, n_members)
        chosen += left[greedy_ranking(points, NOISE, np.ones(len(left)), PER_ROUND).order].tolist()
    last = trained_points([pool[i] for i in chosen], TrainingSet(held_out), recipe, seed, n_members)
    true = np.stack([m.points for m in held_out])
    return float(((last.mean(axis=0) - true) ** 2).mean())


def main() -> None:
    """Replay seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    told = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(os.environ.get("BEAMLINE_ML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    materials = load_materials(folder / "phonon")
    recipe, gains = replace(Recipe(), epochs=told.epochs), []
    name = "ranking_gain" if told.epochs == Recipe().epochs else f"ranking_gain_{told.epochs}_epochs"
    for seed in told.seeds:
        by_chance, ours = (replayed_mse(materials, seed, recipe, told.members, ranked) for ranked in (False, True))
        gains.append(1.0 - ours / by_chance)
        print(f"seed {seed}: at random {by_chance:.5f}, ranked {ours:.5f}, gain {100 * gains[-1]:.1f} %", flush=True)
        rows = [row(name, float(np.mean(gains)), f"of MSE, {len(gains)} seeds", "limit (at least)", 0.05)]
        keep(rows)
        show(rows)


if __name__ == "__main__":
    main()
