"""Training: it learns, it is repeatable, it goes on where it stopped, and it says what it trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from beamline_ml.errors import DataError
from beamline_ml.phonons import load_predictor
from beamline_ml.phonons.dataset import Material, materials_from_arrays
from beamline_ml.phonons.loss import DensityLoss, Targets
from beamline_ml.phonons.network import NetworkOutput, NetworkShape
from beamline_ml.phonons.training import Finish, MemberTraining, Recipe, TrainingSet, finish_head, predict
from beamline_ml.service.phonon_training import train

TINY = NetworkShape(n_scalars=8, n_vectors=4, n_tensors=2, n_bessel=4, radial_width=8, head_width=16)
RECIPE = Recipe(epochs=6, batch_size=4, shape=TINY)


@pytest.fixture(scope="module")
def materials(small_arrays: dict[str, Any]) -> list[Material]:
    return materials_from_arrays(small_arrays)


def test_loss_is_zero_for_the_truth_and_grows_with_the_distance_of_a_peak(materials: list[Material]) -> None:
    targets = Targets.of(materials[:1])
    loss = DensityLoss()

    def at(shift: int) -> float:
        shares = torch.roll(targets.shares, shift, dims=1)
        return float(loss(NetworkOutput(shares, shares, targets.points, shares), targets))

    assert at(0) < 0.01
    assert at(0) < at(1) < at(2) < at(4)


def test_training_learns(materials: list[Material]) -> None:
    data = TrainingSet(materials)
    training = MemberTraining(data, Recipe(epochs=80, batch_size=4, averaging=0.8, shape=TINY), seed=1)
    first = training.run_epoch()
    while not training.finished:
        last = training.run_epoch()
    assert last < 0.35 * first
    points = predict(training.averaged_network(), data).points
    mean_curve = data.targets.points.mean(dim=0)
    assert (points - data.targets.points).square().mean() < 0.35 * (mean_curve - data.targets.points).square().mean()


def test_interrupted_training_ends_with_the_same_weights(materials: list[Material]) -> None:
    data = TrainingSet(materials)
    recipe = Recipe(epochs=4, batch_size=4, jitter_angstrom=0.01, shape=TINY)
    whole = MemberTraining(data, recipe, seed=3)
    while not whole.finished:
        whole.run_epoch()
    begun = MemberTraining(data, recipe, seed=3)
    begun.run_epoch()
    begun.run_epoch()
    tensors, numbers = begun.state()
    resumed = MemberTraining(data, recipe, seed=3)
    resumed.resume(tensors, json.loads(json.dumps(numbers)))
    while not resumed.finished:
        resumed.run_epoch()
    for name, value in whole.average.items():
        assert torch.equal(value, resumed.average[name]), name


def test_last_stage_touches_the_head_alone_and_repeats(materials: list[Material]) -> None:
    data = TrainingSet(materials)
    training = MemberTraining(data, RECIPE, seed=4)
    training.run_epoch()
    before = training.averaged_network().state_dict()
    finish = Finish(epochs=30, batch_size=4, averaging=0.8)
    weights = finish_head(training.averaged_network(), data, finish, seed=4)
    again = finish_head(training.averaged_network(), data, finish, seed=4)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    changed = {name for name in weights if not torch.equal(weights[name], before[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)
    finished = training.averaged_network()
    loss = DensityLoss(finish.loss)
    start = float(loss(predict(finished, data), data.targets))
    finished.load_state_dict(weights)
    assert float(loss(predict(finished, data), data.targets)) < 0.8 * start


def test_seeds_differ(materials: list[Material]) -> None:
    data = TrainingSet(materials)
    losses = [MemberTraining(data, RECIPE, seed).run_epoch() for seed in (0, 1)]
    assert losses[0] != losses[1]


def test_train_writes_weights_that_predict_and_logs_its_rows(tmp_path: Path, small_arrays: dict[str, Any]) -> None:
    data = tmp_path / "small.npz"
    np.savez(data, **small_arrays)
    with pytest.raises(DataError, match="again"):
        train(data, tmp_path / "out", members=2, minutes=1e-6, recipe=RECIPE)
    lines: list[str] = []
    weights = train(data, tmp_path / "out", members=2, recipe=RECIPE, report=lines.append)
    log = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert log["trained_rows"] == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert log["held_out_rows"] == [3, 7, 11]
    assert any("epoch 6/6" in line for line in lines)
    assert "3 held-out materials" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    from ase.build import bulk

    dos = load_predictor(weights)(bulk("NaCl", "rocksalt", a=5.64))
    assert dos.modes.sum() == pytest.approx(6.0, abs=1e-9)
    assert dos.nearest.formula == "NaCl"
    assert dos.member_shares.shape == (2, 72)
