"""Flow ``phonon-dos`` over a hundred catalogued samples: ``python -m tests.benchmarks.bench_phonon_flow``.

On the embedded stack, whose tiled and Prefect are processes of their own; the samples are structures of the published
validation rows, and one that is broken. Beside the wall time stand the processor seconds of all processes involved,
which tell what a free machine would need.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch
from ase import Atoms
from ase.io import write

from beamline_ml.phonons.dataset import Material
from beamline_ml.service.configuration import shell_environment
from beamline_ml.service.phonon_data import load_materials
from tests.benchmarks.bench_service import bench_stack
from tests.benchmarks.rows import Row, row

N_SAMPLES = 100


def rows() -> list[Row]:
    """Benchmark rows of the flow."""
    torch.set_num_threads(1)
    folder = Path(os.environ.get("BEAMLINE_ML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    held_out = [m for m in load_materials(folder / "phonon") if m.held_out][:N_SAMPLES]
    with tempfile.TemporaryDirectory() as state, _services(Path(state)) as root:
        samples = root["samples"] if "samples" in root else root.create_container("samples")
        for material in held_out:
            samples.create_container(
                f"row{material.row}", metadata={"composition": material.formula, "cif": cif(material)}
            )
        samples.create_container("broken", metadata={"cif": cif(held_out[0])[:300]})
        first, again = _measured(), _measured()
    return [
        row("phonons_flow_100_samples_s", first["wall_s"], "s", 60.0),
        row("phonons_flow_100_samples_cpu_s", first["cpu_s"], "CPU s", 2 * 60.0, "limit on two cores"),
        row("phonons_flow_100_samples_published", len(first["said"]["published"]), "1", N_SAMPLES, "samples"),
        row("phonons_flow_100_samples_refused", len(first["said"]["refused"]), "1", 1, "broken structures"),
        row("phonons_flow_100_unchanged_s", again["wall_s"], "s"),
        row("phonons_flow_100_unchanged_cpu_s", again["cpu_s"], "CPU s"),
    ]


def cif(material: Material) -> str:
    """The material as the text of a CIF file."""
    buffer = io.BytesIO()
    write(buffer, Atoms(material.numbers, material.positions, cell=material.cell, pbc=True), format="cif")
    return buffer.getvalue().decode()


@contextmanager
def _services(folder: Path) -> Iterator[Any]:
    """Client of the embedded stack's tiled, a process of its own as its Prefect is; the environment names both."""
    from tiled.client import from_uri

    with bench_stack(folder) as (stack, _), patch.dict(os.environ, shell_environment(stack.settings)):
        key = stack.settings.tiled.api_key
        root = from_uri(stack.tiled_uri, api_key=None if key is None else key.get_secret_value())
        yield root
        root.context.close()


def _measured() -> dict[str, Any]:
    from flows.phonon_dos import phonon_dos

    cpu_s, began = _processor_seconds(), time.perf_counter()
    said = phonon_dos()
    return {"said": said, "wall_s": time.perf_counter() - began, "cpu_s": _processor_seconds() - cpu_s}


def _processor_seconds() -> float:
    """Of this process and of the servers it started."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


if __name__ == "__main__":
    json.dump(rows(), sys.stdout, indent=1)
