"""``beamline-ml phonons train``: make the shipped weights from the data, one process and one torch thread per core.

Every member of the ensemble is trained by a process of its own, two at a time, and leaves a checkpoint after each
epoch: a training that was cut off goes on from there and ends with the same weights. (More than one torch thread per
process makes such small batches ten times slower as soon as cores are shared.)
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from beamline_ml.errors import DataError
from beamline_ml.phonons.assembly import assemble
from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.training import MemberTraining, Recipe, TrainingSet, finish_head, predict
from beamline_ml.service.phonon_card import model_card
from beamline_ml.service.phonon_data import DATA_FILE, load_materials

WEIGHTS_FILE = "phonon_ensemble.safetensors"
CARD_FILE = "MODEL_CARD.md"
_POLL_S = 5.0


@dataclass(frozen=True, slots=True)
class _Member:
    """What a training process needs to know."""

    data: Path
    folder: Path
    seed: int
    recipe: Recipe
    deadline: float
    """Seconds since the epoch after which no new epoch begins."""
    parent: int = 0
    """Process that asked; when it is gone, nobody waits for the weights any more."""


def train(
    data_path: Path,
    out_dir: Path,
    seed: int = 0,
    members: int = 8,
    minutes: float | None = None,
    processes: int = 2,
    recipe: Recipe | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train the ensemble and write weights, model card and log into ``out_dir``.

    Parameters
    ----------
    data_path
        The data file, or the folder that holds it.
    seed
        Of the first member; the others follow.
    minutes
        Stop at the next epoch after this time; call again to go on.
    report
        Called with lines of progress.

    Returns
    -------
    Path of the weights file.

    Raises
    ------
    DataError
        The data cannot be read, or time ran out before all members were done.
    """
    recipe = recipe or Recipe()
    out_dir.mkdir(parents=True, exist_ok=True)
    materials = load_materials(data_path)
    _log_rows(out_dir, data_path, materials, recipe)
    deadline = time.time() + 60.0 * minutes if minutes else float("inf")
    jobs = [_Member(data_path, out_dir / f"member{k}", seed + k, recipe, deadline, os.getpid()) for k in range(members)]
    _train_members(jobs, processes, report)
    unfinished = [job.folder.name for job in jobs if not (job.folder / "weights.safetensors").is_file()]
    if unfinished:
        raise DataError(
            f"Time is up and {', '.join(unfinished)} are not trained yet.",
            f"Run the same command again: it goes on from the checkpoints in {out_dir}.",
        )
    return _write_ensemble(out_dir, jobs, materials, recipe, report)


def _log_rows(out_dir: Path, data_path: Path, materials: Sequence[Material], recipe: Recipe) -> None:
    """Say which rows are trained on and which are held out, from which data, by which recipe."""
    file = data_path / DATA_FILE if data_path.is_dir() else data_path
    log = {
        "data_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "recipe": recipe.to_dict(),
        "trained_rows": [m.row for m in materials if not m.held_out],
        "held_out_rows": [m.row for m in materials if m.held_out],
    }
    (out_dir / "rows.json").write_text(json.dumps(log) + "\n")


def _train_members(jobs: Sequence[_Member], processes: int, report: Callable[[str], None]) -> None:
    # The children read this when they start; a process that is running already keeps its threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=processes, mp_context=context) as pool:
        running: set[Future[None]] = {pool.submit(_train_member, job) for job in jobs}
        said: dict[str, str] = {}
        while running:
            done, running = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for job in jobs:
                _report_progress(job, said, report)
            for future in done:
                future.result()


def _report_progress(job: _Member, said: dict[str, str], report: Callable[[str], None]) -> None:
    file = job.folder / "log.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    if lines and said.get(job.folder.name) != lines[-1]:
        said[job.folder.name] = lines[-1]
        entry = json.loads(lines[-1])
        report(f"{job.folder.name}: epoch {entry['epoch']}/{job.recipe.epochs}, loss {entry['loss']:.4f}")


def _train_member(job: _Member) -> None:
    """Train one member to the end or the deadline; runs in a process of its own."""
    torch.set_num_threads(1)
    job.folder.mkdir(exist_ok=True)
    if (job.folder / "weights.safetensors").is_file():
        return
    materials = load_materials(job.data)
    training = MemberTraining(TrainingSet([m for m in materials if not m.held_out]), job.recipe, job.seed)
    held_out = TrainingSet([m for m in materials if m.held_out])
    _resume(training, job.folder / "checkpoint.safetensors")
    while not training.finished and time.time() < job.deadline and os.getppid() == job.parent:
        started = time.perf_counter()
        entry: dict[str, Any] = {"epoch": training.epoch + 1, "loss": training.run_epoch()}
        entry["seconds"] = round(time.perf_counter() - started, 2)
        if training.epoch % 6 == 0 or training.finished:
            entry["held_out_mse"] = _held_out_mse(training, held_out)
        _checkpoint(training, job.folder / "checkpoint.safetensors")
        with (job.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")
    if training.finished:
        weights = finish_head(training.averaged_network(), training.data, job.recipe.finish, job.seed)
        save_file(weights, job.folder / "weights.safetensors")


def _held_out_mse(training: MemberTraining, held_out: TrainingSet) -> float:
    points = predict(training.averaged_network(), held_out).points
    return float((points - held_out.targets.points).square().mean())


def _checkpoint(training: MemberTraining, file: Path) -> None:
    tensors, numbers = training.state()
    part = file.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, part, {"numbers": json.dumps(numbers)})
    part.replace(file)


def _resume(training: MemberTraining, file: Path) -> None:
    if not file.is_file():
        return
    with safe_open(file, framework="pt") as checkpoint:
        numbers = json.loads(checkpoint.metadata()["numbers"])
    training.resume(load_file(file), numbers)


def _write_ensemble(
    out_dir: Path, jobs: Sequence[_Member], materials: Sequence[Material], recipe: Recipe, report: Callable[[str], None]
) -> Path:
    report("calibrating on the held-out materials")
    weights = [load_file(job.folder / "weights.safetensors") for job in jobs]
    digest = hashlib.sha256(b"".join(v.numpy().tobytes() for w in weights for v in w.values())).hexdigest()
    tensors, about = assemble(weights, recipe.shape, materials, version=f"phonons-1-{digest[:8]}")
    about |= {"recipe": recipe.to_dict(), "seeds": [job.seed for job in jobs]}
    target = out_dir / WEIGHTS_FILE
    part = target.with_suffix(".part")
    save_file(tensors, part, {"about": json.dumps(about)})
    part.replace(target)
    (out_dir / CARD_FILE).write_text(model_card(about, materials, target.stat().st_size))
    report(f"wrote {target}")
    return target
