"""``python -m tests.benchmarks [ROOM]``: measure, print a table, and write ``benchmarks.json``.

A room's figures come from the modules named after it, each with ``rows()``. Rows of rooms that are not measured this
time stay in the file as they are.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOMS = {
    "service": ("bench_service", "bench_page", "bench_faults", "bench_setup"),
    "correlation": ("bench_correlation",),
    "dynamics": ("bench_dynamics", "bench_dynamics_correlations", "bench_dynamics_foreign", "bench_dynamics_step"),
    "phonons": ("bench_phonons", "bench_phonon_flow", "bench_phonon_training", "bench_phonon_teacher"),
    "guidance": ("bench_guidance", "bench_ranking"),
}
OUTPUT = Path("benchmarks.json")


def measured(room: str) -> list[dict[str, Any]]:
    """Rows of a room's modules that exist."""
    folder = Path(__file__).parent
    modules = [name for name in ROOMS[room] if (folder / f"{name}.py").exists()]
    return [row for name in modules for row in import_module(f"tests.benchmarks.{name}").rows()]


def keep(rows: list[dict[str, Any]]) -> None:
    """Put rows into the file, in place of older ones of the same name."""
    known = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else []
    names = {row["name"] for row in rows}
    merged = [row for row in known if row["name"] not in names] + rows
    OUTPUT.write_text(json.dumps(merged, indent=1, allow_nan=False) + "\n")


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    table = Table()
    for heading in ("figure", "value", "unit", "against", "its value", "ratio"):
        table.add_column(heading)
    for row in rows:
        numbers = (row["value"], row["reference_value"], row["ratio"])
        value, reference, ratio = ("" if number is None else f"{number:.4g}" for number in numbers)
        table.add_row(row["name"], value, row["unit"], row["reference"] or "", reference, ratio)
    Console(width=140).print(table)


def main(room: str = "all") -> None:
    """Measure one room, or all."""
    if room not in (*ROOMS, "all"):
        raise SystemExit(f"There is no room {room!r}; choose one of {', '.join(ROOMS)} or all.")
    for name in ROOMS if room == "all" else (room,):
        rows = measured(name)
        keep(rows)
        show(rows)


if __name__ == "__main__":
    main(*sys.argv[1:2])
