"""What services say on a terminal: progress of the hops, addresses, findings."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from beamline_ml.service.stack import Stack, Step

if TYPE_CHECKING:
    from beamline_ml.service.doctor import Finding

_TITLES = {
    "movie": "speckle movie",
    "tiled": "tiled server",
    "prefect": "Prefect server",
    "deployments": "flows registered",
    "worker": "worker",
    "watcher": "watcher",
    "scan": "burst on the detector",
    "trigger": "automatic trigger",
    "analysis": "correlate, fit, forecast, publish",
    "stack": "tear everything down",
}
_STATES = {"starting": "started", "ready": "done", "stopping": "started", "stopped": "done"}


class Hops:
    """A line for each hop, with a spinner while it goes on and its time when it is done.

    Used as a context manager; :meth:`tell` and :meth:`on_step` may be called from any thread.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[remark]}"),
            console=console,
        )
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}

    def tell(self, hop: str, state: str, remark: str = "") -> None:
        """Hear that a hop is started or done."""
        if state == "started":
            self._start(hop, remark)
        elif hop in self._tasks:
            self._finish(hop, remark)

    def on_step(self, step: Step) -> None:
        """Hear a step of the embedded stack."""
        if step.state in _STATES:
            self.tell(step.name, _STATES[step.state])

    def _start(self, hop: str, remark: str) -> None:
        if hop in self._tasks:
            return
        self._began[hop] = time.monotonic()
        self._tasks[hop] = self._progress.add_task(f"{_TITLES.get(hop, hop):34}", total=1, remark=remark)

    def _finish(self, hop: str, remark: str) -> None:
        task = self._tasks[hop]
        self._progress.update(task, completed=1)
        if remark:
            self._progress.update(task, remark=remark)
        if not self._console.is_terminal:
            seconds = time.monotonic() - self._began[hop]
            self._console.print(f"  {_TITLES.get(hop, hop):34} {seconds:6.1f} s  {remark}".rstrip())

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def stop(self) -> None:
        """Draw the lines for the last time; what is printed after stands below them."""
        self._progress.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def addresses(stack: Stack) -> Table:
    """Where the pages of a running stack are."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")  # an address is copied whole, however narrow the window
    table.add_row("live page", stack.page_uri)
    table.add_row("tiled page", f"{stack.tiled_uri}/ui?api_key={stack.state.api_key()}")
    table.add_row("Prefect page", stack.prefect_api_url.removesuffix("/api"))
    table.add_row("state directory", str(stack.state.root))
    return table


def wait_for_interrupt() -> None:
    """Return at Ctrl-C; SIGTERM ends the process through the stack's own handler."""
    try:
        while True:
            threading.Event().wait(3600.0)
    except KeyboardInterrupt:
        return


_MARKS = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[red]✗[/]"}


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """A line for each check, with the remedy where something is wrong."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    for finding in findings:
        remedy = "" if finding.status == "ok" else f"\n[bold]What to do[/]: {finding.remedy}"
        table.add_row(_MARKS[finding.status], finding.name, f"{finding.finding}{remedy}")
    console.print(table)
