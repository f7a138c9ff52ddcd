"""What the page asks of tiled, and what it knows without asking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from beamline_ml.live.follower import Follower
from beamline_ml.live.page import poller as polling
from beamline_ml.live.page.ears import Ears
from beamline_ml.live.page.matrix import NewRows, RingMatrix
from beamline_ml.live.page.poller import Poller, Wanted
from beamline_ml.settings import Settings
from tests.live.conftest import N_FRAMES, GrowingRun
from tests.service.processes import eventually


@pytest.fixture
def poller(settings: Settings) -> Iterator[Poller]:
    poller = Poller(settings)
    poller.start()
    yield poller
    poller.close()


def rows_shown(poller: Poller, run: GrowingRun) -> int:
    snapshot = poller.snapshot(Wanted())
    return len(snapshot.c2) if snapshot is not None and snapshot.line.uid == run.uid else 0


def grow(run: GrowingRun, follower: Follower) -> np.ndarray:
    """All frames, of which C2 alone is published; returns its middle ring."""
    run.write(N_FRAMES)
    follower.take(N_FRAMES)
    follower._publish()
    return follower.two_time().c2[1]


def test_new_rows_of_c2_cost_no_request(
    poller: Poller, followed: tuple[GrowingRun, Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, follower = followed
    assert eventually(lambda: rows_shown(poller, run) == 100 and poller.snapshot(Wanted()).g2, 30.0)
    assert eventually(lambda: poller._ears.hears(poller.lines[0].key), 10.0)
    for name in ("LIVE_EVERY_S", "RESULTS_EVERY_S"):
        monkeypatch.setattr(polling, name, 1e9)
    before = poller.n_requests
    c2 = grow(run, follower)
    assert eventually(lambda: rows_shown(poller, run) == N_FRAMES, 30.0)
    assert poller.n_requests == before
    np.testing.assert_array_equal(poller.snapshot(Wanted()).c2, c2)


def test_what_the_stream_lost_is_in_the_catalogue(
    poller: Poller, followed: tuple[GrowingRun, Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, follower = followed
    monkeypatch.setattr(Ears, "hear_rows", lambda *_: None)
    poller._ears.only(())
    assert eventually(lambda: rows_shown(poller, run) == 100, 30.0)
    c2 = grow(run, follower)
    assert eventually(lambda: rows_shown(poller, run) == N_FRAMES, 30.0)
    np.testing.assert_array_equal(poller.snapshot(Wanted()).c2, c2)


class Array:
    """Counts what is read of it."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.read = values, 0
        self.shape = values.shape

    def __getitem__(self, what: Any) -> np.ndarray:
        part = self.values[what]
        self.read += part.size
        return part


@pytest.fixture
def whole() -> np.ndarray:
    """(n_q, n, n) symmetric."""
    half = np.random.default_rng(0).random((2, 50, 50)).astype(np.float32)
    return half + half.transpose(0, 2, 1)


def test_only_new_rows_are_fetched(whole: np.ndarray) -> None:
    matrix = RingMatrix()
    first, second = Array(whole[:, :40, :40]), Array(whole)
    np.testing.assert_array_equal(matrix.updated({"c2": first}, "run", 1, 0), whole[1, :40, :40])
    np.testing.assert_array_equal(matrix.updated({"c2": second}, "run", 1, 0), whole[1])
    assert second.read == 11 * 50


def test_an_array_without_values_yet_is_not_taken_for_c2(whole: np.ndarray) -> None:
    matrix = RingMatrix()
    assert len(matrix.updated({"c2": Array(np.zeros_like(whole))}, "run", 1, 0)) == 0
    np.testing.assert_array_equal(matrix.updated({"c2": Array(whole)}, "run", 1, 0), whole[1])


def test_streamed_rows_fit_or_are_left_to_the_catalogue(whole: np.ndarray) -> None:
    matrix = RingMatrix()
    matrix.updated({"c2": Array(whole[:, :30, :30])}, "run", 1, 0)
    assert matrix.streamed(NewRows("other", (0, 29, 0), whole[:, 29:40, :40])) is None
    assert matrix.streamed(NewRows("run", (0, 40, 0), whole[:, 40:])) is None, "rows between are missing"
    assert matrix.streamed(NewRows("run", (0, 0, 29), whole[:, :29, 29:40])) is None, "the mirror image"
    np.testing.assert_array_equal(matrix.streamed(NewRows("run", (0, 29, 0), whole[:, 29:40, :40])), whole[1, :40, :40])
    # The catalogue may lag behind; it wins when it does not catch up.
    behind = {"c2": Array(whole[:, :30, :30])}
    assert len(matrix.updated(behind, "run", 1, 0)) == 40
    assert len(matrix.updated(behind, "run", 1, 0)) == 30
