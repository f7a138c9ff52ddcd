"""What training the shipped ensemble costs: ``python -m tests.benchmarks.bench_phonon_training``.

Three epochs and the last stage of one member are trained on the real data; processor seconds are scaled to the whole
recipe, eight members on two cores. The whole training is ``beamline-ml phonons train``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

from beamline_ml.phonons.training import MemberTraining, Recipe, TrainingSet, finish_head
from beamline_ml.service.phonon_data import load_materials
from tests.benchmarks.rows import Row, row

MEMBERS, CORES, EPOCHS = 8, 2, 3


def rows() -> list[Row]:
    """Benchmark rows of the training."""
    torch.set_num_threads(1)
    folder = Path(os.environ.get("BEAMLINE_ML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    recipe = Recipe()
    began = time.process_time()
    data = TrainingSet([m for m in load_materials(folder / "phonon") if not m.held_out])
    training = MemberTraining(data, recipe, seed=0)
    prepared = time.process_time()
    for _ in range(EPOCHS):
        training.run_epoch()
    trained = time.process_time()
    finish_head(training.averaged_network(), data, recipe.finish, seed=0)
    finished = time.process_time()
    epoch_s = (trained - prepared) / EPOCHS
    member_s = (prepared - began) + recipe.epochs * epoch_s + (finished - trained)
    return [
        row("phonons_training_epoch_s", epoch_s, "CPU s"),
        row("phonons_training_two_cores_min", MEMBERS * member_s / CORES / 60.0, "min", 25.0, "limit, scaled up"),
    ]


if __name__ == "__main__":
    json.dump(rows(), sys.stdout, indent=1)
