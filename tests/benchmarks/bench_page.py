"""The live page in a real browser: ``python -m tests.benchmarks.bench_page``. How soon it is there, and how late."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from beamline_ml.acquisition.burst import read_burst, start_burst
from beamline_ml.live.feed import RunFeed
from beamline_ml.live.page.poller import Poller, Wanted
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.service.stack import Stack
from beamline_ml.settings import Settings
from tests.benchmarks.bench_service import PATIENCE_S, bench_stack, make_movie, median
from tests.benchmarks.rows import Row, row
from tests.live.chromium import CHROMIUM, running_chromium
from tests.service.processes import eventually

N_LOADS = 5
N_FRAMES = 1200
"""Long enough for the page to find the run while it goes on."""
LOAD_LIMIT_S = UPDATE_LIMIT_S = 2.0
_LOOK_S = 0.05
_PATIENCE_MS = 60_000
# Age up to which the page shows measured C2; the forecast's image is the larger one.
_SHOWN_S = """() => {
  const images = Bokeh.documents.flatMap(d => [...d._all_models.values()])
    .filter(m => m.type === 'ColumnDataSource' && m.data.dw && m.data.dw.length)
    .map(m => Number(m.data.x[0]) + Number(m.data.dw[0]));
  return images.length ? Math.min(...images) : 0;
}"""


class Announcements:
    """When how many frames of a run were announced, noted in a thread.

    Parameters
    ----------
    catalogue, uid
        The run.
    """

    def __init__(self, catalogue: Catalogue, uid: str) -> None:
        self._feed = RunFeed(catalogue.raw, uid, "primary", "det")
        self._noted: list[tuple[int, float]] = []
        self.stopped = threading.Event()
        threading.Thread(target=self._note, daemon=True).start()

    def _note(self) -> None:
        while not self.stopped.is_set():
            told = self._feed.wait(0.1)
            if told.n_frames > (self._noted[-1][0] if self._noted else 0):
                self._noted.append((told.n_frames, time.monotonic()))
            if told.stopped:
                self.stopped.set()
        self._feed.close()

    def announced_at(self, n_frames: float) -> float | None:
        """When at least ``n_frames`` frames had been announced."""
        return next((at for n, at in self._noted if n >= n_frames), None)


class Requests:
    """What a page server asks of tiled while a run goes on, counted beside the one that is measured."""

    def __init__(self, settings: Settings) -> None:
        self._poller = Poller(settings)
        self._known = 0
        self._had: list[tuple[int, float]] = []
        self.n_updates = self.until_first_c2 = 0
        self._poller.tell(self._note)
        self._poller.start()

    def _note(self) -> None:
        snapshot = self._poller.snapshot(Wanted())
        n_rows = 0 if snapshot is None or snapshot.line.status != "live" else len(snapshot.c2)
        if n_rows > self._known:
            self.n_updates += 1
            self._had.append((n_rows, time.monotonic()))
            self.until_first_c2 = self.until_first_c2 or self._poller.n_requests
        self._known = n_rows

    def had_at(self, n_rows: float) -> float | None:
        """When a reader of tiled had at least ``n_rows`` rows of C2."""
        return next((at for n, at in self._had if n >= n_rows), None)

    @property
    def per_update(self) -> float:
        """Requests over updates of C2 after the first: tables, lists of runs and all."""
        return (self._poller.n_requests - self.until_first_c2) / max(1, self.n_updates - 1)

    def close(self) -> None:
        self._poller.close()


def load_s(chromium: Any, uri: str) -> float:
    """From asking for the page to a drawn C2."""
    page = chromium.new_page()
    began = time.monotonic()
    page.goto(uri)
    page.locator("canvas").nth(3).wait_for(state="attached", timeout=_PATIENCE_MS)
    page.wait_for_function(f"({_SHOWN_S})() > 0", timeout=_PATIENCE_MS)
    took_s = time.monotonic() - began
    page.close()
    return took_s


@dataclass
class Followed:
    """What was seen of a page while a run went on."""

    lags_s: list[float] = field(default_factory=list)
    """For each growth of C2 on the page: time since its frames were announced in tiled."""
    draws_s: list[float] = field(default_factory=list)
    """The same since another reader of tiled had these rows, where it had them first."""
    requests_per_update: float = 0.0
    requests_until_first_c2: float = 0.0


def follow_updates(chromium: Any, stack: Stack, movie: Path, frame_period_s: float) -> Followed:
    """Keep a page open while a run goes on."""
    seen = Followed()
    page = chromium.new_page()
    page.goto(stack.page_uri)
    process = start_burst(stack.settings, movie=movie)
    with closing(Catalogue(stack.settings)) as catalogue, closing(Requests(stack.settings)) as requests:
        (uid,) = _new_run(catalogue)
        announcements = Announcements(catalogue, uid)
        shown_s = 0.0
        deadline = time.monotonic() + PATIENCE_S
        while not announcements.stopped.is_set() and time.monotonic() < deadline:
            now_s = float(page.evaluate(_SHOWN_S))
            n_rows = np.floor(now_s / frame_period_s)
            at, had_at = announcements.announced_at(n_rows), requests.had_at(n_rows)
            # The page shows the run before until this one has frames.
            if now_s != shown_s and at is not None:
                seen.lags_s.append(time.monotonic() - at)
                seen.draws_s += [] if had_at is None else [time.monotonic() - had_at]
            shown_s = now_s
            time.sleep(_LOOK_S)
        seen.requests_per_update, seen.requests_until_first_c2 = requests.per_update, requests.until_first_c2
    read_burst(process)
    page.close()
    return seen


def _new_run(catalogue: Catalogue) -> list[str]:
    known = set(catalogue.raw)
    found: list[str] = []

    def look() -> bool:
        found[:] = [uid for uid in catalogue.raw if uid not in known]
        return bool(found)

    assert eventually(look, 60.0)
    return found


def rows() -> list[Row]:
    """page_load_s and page_update_s; nothing without a browser."""
    if CHROMIUM is None:
        print("page_load_s and page_update_s need Chromium (apt-get install chromium).", file=sys.stderr)
        return []
    with (
        tempfile.TemporaryDirectory() as folder,
        bench_stack(Path(folder)) as (stack, _),
        running_chromium() as chromium,
    ):
        movie = make_movie(Path(folder) / "movie.h5", N_FRAMES)
        seen = follow_updates(chromium, stack, movie, 0.01)
        loads = [load_s(chromium, stack.page_uri) for _ in range(N_LOADS)]
    return [
        row("page_load_s", median(loads), "s", LOAD_LIMIT_S),
        row("page_update_s", median(seen.lags_s), "s", UPDATE_LIMIT_S),
        row("page_update_p95_s", float(np.percentile(seen.lags_s, 95)), "s", UPDATE_LIMIT_S),
        row("page_updates_seen", len(seen.lags_s), "updates"),
        *([row("page_c2_in_tiled_to_screen_s", median(seen.draws_s), "s")] if seen.draws_s else []),
        row("page_requests_until_first_c2", seen.requests_until_first_c2, "requests"),
        row("page_requests_per_update", seen.requests_per_update, "requests"),
    ]


if __name__ == "__main__":
    json.dump(rows(), sys.stdout, indent=1)
