"""Network, teacher and their stack on a random sample of the development split:
``python -m tests.benchmarks.bench_phonon_teacher``.

Needs the extra ``teacher``; without it there are no rows. The sample is the last 16 rows of the development split in
the seeded random order in which ``beamline-ml phonons label`` goes; the shipped stacking rests on the first ones, so
nothing was fitted on these. Labels are kept in ``.teacher_labels`` and a run that was cut off goes on there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from beamline_ml.phonons import load_predictor
from beamline_ml.phonons.metrics import PointMetrics, point_metrics
from beamline_ml.phonons.stacking import load_stacking
from beamline_ml.service.phonon_data import load_materials
from beamline_ml.service.phonon_labels import in_random_order, label
from beamline_ml.service.phonon_stacking import labelled, predictions
from tests.benchmarks.rows import Row, row

N_SAMPLE = 16
LABELS = Path(".teacher_labels")


def rows() -> list[Row]:
    """Benchmark rows of the teacher, where it is installed."""
    if any(importlib.util.find_spec(name) is None for name in ("sevenn", "phonopy", "spglib")):
        return []
    from beamline_ml.service.phonon_teacher import load_teacher

    torch.set_num_threads(1)
    folder = Path(os.environ.get("BEAMLINE_ML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    held_out = [m for m in load_materials(folder / "phonon") if m.held_out]
    sample = in_random_order(held_out, seed=0)[-N_SAMPLE:]
    file = label(sample, LABELS, load_teacher(), lambda line: print(line, file=sys.stderr))
    return _compared(file, sample)


def _compared(file: Path, sample: list) -> list[Row]:
    predictor, stacking = load_predictor(), load_stacking()
    chosen, opinions = labelled(sample, file)
    predicted, true = predictions(predictor, chosen), np.stack([m.points for m in chosen])

    def figures(points: list[np.ndarray]) -> PointMetrics:
        return point_metrics(np.stack(points), true)

    network = figures([p.points.mean(axis=0) for p in predicted])
    alone = figures([o.points(stacking.stretch) for o in opinions])
    both = figures([stacking.points(p, o) for p, o in zip(predicted, opinions, strict=True)])
    seconds = np.array([opinion.seconds for opinion in opinions])
    return [
        row("phonons_teacher_mse", both.mse, "1", 0.0100, "stretch on the test rows"),
        row("phonons_teacher_mse_of_network", network.mse, "1"),
        row("phonons_teacher_mse_of_teacher", alone.mse, "1"),
        row("phonons_teacher_mae", both.mae, "1"),
        row("phonons_teacher_mae_of_network", network.mae, "1"),
        row("phonons_teacher_materials", len(chosen), "1", N_SAMPLE, "asked"),
        row("phonons_teacher_longest_s", float(seconds.max()), "CPU s", 60.0),
        row("phonons_teacher_mean_s", float(seconds.mean()), "CPU s"),
    ]


if __name__ == "__main__":
    json.dump(rows(), sys.stdout, indent=1)
