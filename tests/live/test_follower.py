"""A run is followed to its end: what is published equals what the final analysis finds, whatever happened meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest

from beamline_ml.live.follower import Follower
from beamline_ml.live.forecaster import FitProcess
from beamline_ml.live.scoring import KeptForecast
from beamline_ml.results.identity import result_key
from beamline_ml.service import analysis as steps
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.settings import Settings, load_settings
from tests.conftest import left_behind
from tests.live.conftest import N_FRAMES, GrowingRun
from tests.service.processes import eventually


@pytest.fixture(scope="module")
def process() -> Iterator[FitProcess]:
    with closing(FitProcess()) as made:
        yield made


@contextmanager
def following(settings: Settings, uid: str, process: FitProcess) -> Iterator[tuple[Follower, threading.Thread]]:
    """A follower at work in a thread."""
    with closing(Catalogue(settings)) as catalogue, closing(Follower(settings, catalogue, uid, process)) as follower:
        ended: list[str] = []
        thread = threading.Thread(target=lambda: ended.append(follower.follow()))
        thread.start()
        follower.ended = ended  # type: ignore[attr-defined]
        yield follower, thread
        thread.join(60)
        assert not thread.is_alive()
        assert follower.is_published()


def batch(settings: Settings, uid: str) -> Any:
    """What the final analysis finds in the same run."""
    with closing(Catalogue(settings)) as catalogue:
        subject = steps.look_up(catalogue.raw, uid, settings.analysis)
        with steps.read_frames(subject, settings) as reader:
            found = steps.correlate(subject, reader, steps.choose_qmap(subject, settings.analysis), "plain")
        return steps.published_rows(found)[0]


def record(settings: Settings, uid: str) -> Any:
    with closing(Catalogue(settings)) as catalogue:
        (node,) = (node for node in catalogue.live.values() if node.metadata["scan_uid"] == uid)
        return {
            "metadata": dict(node.metadata),
            **{name: np.asarray(node[name].read()) for name in ("c2", "intensity", "age_s")},
            "g2": node["g2"].read(),
        }


def grow(run: GrowingRun, sizes: list[int], pause_s: float = 0.15) -> None:
    for n in sizes:
        run.write(n)
        time.sleep(pause_s)


def test_live_equals_batch_bit_for_bit(
    settings: Settings, begin_run: Callable[..., GrowingRun], process: FitProcess
) -> None:
    run = begin_run()
    with following(settings, run.uid, process) as (follower, _):
        grow(run, [7, 20, 21, 60, 95, 130, 131, 180, 230, N_FRAMES])
        run.stop()
    assert follower.ended == ["stopped"]
    live, final = record(settings, run.uid), batch(settings, run.uid)
    np.testing.assert_array_equal(live["c2"], final.c2)
    np.testing.assert_array_equal(live["age_s"], final.age_s)
    np.testing.assert_array_equal(follower.two_time().numerator, final.numerator)
    assert live["metadata"]["health"]["frames_correlated"] == N_FRAMES
    assert live["metadata"]["health"]["missed_updates"] == 0
    assert len(live["g2"]) > 10


def test_a_pixel_that_turns_out_to_be_hot_is_taken_out_of_everything(
    settings: Settings, begin_run: Callable[..., GrowingRun], process: FitProcess, movie: np.ndarray
) -> None:
    hot = movie.copy()
    hot[100:, 5, 5] = 60000
    run = begin_run(movie=hot)
    run.write(40)
    with following(settings, run.uid, process) as (follower, _):
        assert eventually(lambda: follower.n_frames == 40)
        grow(run, [90, 130, 200, N_FRAMES])
        run.stop()
    np.testing.assert_array_equal(record(settings, run.uid)["c2"], batch(settings, run.uid).c2)
    assert follower.health_now()["correlated_again"] >= 1


def test_a_restart_goes_on_where_the_checkpoint_left_it(
    settings: Settings, begin_run: Callable[..., GrowingRun], process: FitProcess
) -> None:
    run = begin_run()
    run.write(120)
    with closing(Catalogue(settings)) as catalogue:
        first = Follower(settings, catalogue, run.uid, process)
        assert first.begin()
        first.take(120)
        first.save()
        first.close()  # and dies here
        run.write(N_FRAMES)
        run.stop()
        second = Follower(settings, catalogue, run.uid, process)
        with closing(second):
            assert second.begin()
            assert second.n_frames == 120, "no frame is read twice"
            assert second.follow() == "stopped"
            assert second.is_published()
    np.testing.assert_array_equal(record(settings, run.uid)["c2"], batch(settings, run.uid).c2)


def kept_forecast(made_at_s: float, until_s: float, q_inv_angstrom: np.ndarray) -> KeptForecast:
    times_s = np.linspace(0.0, until_s, 21)
    c2 = np.broadcast_to(np.float32(1.1), (len(q_inv_angstrom), 21, 21)).copy()
    return KeptForecast(times_s, q_inv_angstrom, c2, c2 - 0.1, c2 + 0.2, made_at_s, "ageing_kww")


def test_a_restart_keeps_the_forecasts_and_scores_them(
    settings: Settings, begin_run: Callable[..., GrowingRun], process: FitProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAMLINE_ML_ANALYSIS__MODEL", "neural_ode")
    settings = load_settings()
    run = begin_run()
    run.write(40)  # too few for a fit
    with closing(Catalogue(settings)) as catalogue:
        first = Follower(settings, catalogue, run.uid, process)
        assert first.begin()
        first.take(40)
        q = first.two_time().q_inv_angstrom[:2]
        made = [kept_forecast(at_s, 0.6, q) for at_s in (0.2, 0.39)]
        first._forecaster.forecasts += made
        first.publish_all()
        assert [score.n_entries > 0 for score in first.scores()] == [True, False]
        first.close()  # and dies here
        run.write(60)
        with closing(Follower(settings, catalogue, run.uid, process)) as second:
            assert second.begin()
            second.take(60)
            second.publish_all()
            found = second._forecaster.forecasts
            assert [score.n_entries > 0 for score in second.scores()] == [True, True]
            assert second.health_now()["forecasts"] == 2
        (node,) = (node for node in catalogue.live.values() if node.metadata["scan_uid"] == run.uid)
        assert node["forecasts"].read()["made_at_s"].tolist() == [0.2, 0.39]
    for one, other in zip(made, found, strict=True):
        np.testing.assert_array_equal(one.upper, other.upper)
        np.testing.assert_array_equal(one.times_s, other.times_s)
        assert (one.method, one.observed_until_s) == (other.method, other.observed_until_s)


def test_a_run_that_is_joined_late(
    settings: Settings, begin_run: Callable[..., GrowingRun], process: FitProcess
) -> None:
    run = begin_run()
    run.write(200)
    with following(settings, run.uid, process):
        run.write(N_FRAMES)
        run.stop()
    np.testing.assert_array_equal(record(settings, run.uid)["c2"], batch(settings, run.uid).c2)


def test_lost_late_and_doubled_notifications_change_nothing(
    settings: Settings, begin_run: Callable[..., GrowingRun], process: FitProcess
) -> None:
    class Told:
        def __init__(self, n: int) -> None:
            self.shape = (n, 32, 24)

    run = begin_run()
    run.write(30)
    with (
        closing(Catalogue(settings)) as catalogue,
        closing(Follower(settings, catalogue, run.uid, process)) as follower,
    ):
        assert follower.begin()
        feed = follower.feed
        feed._listen = lambda: None  # type: ignore[method-assign]  # every notification is lost
        run.write(90)
        for told in (30, 90, 90, 10):  # late and doubled ones
            feed.ring(Told(told))
        assert feed.wait(0.1).n_frames == 90
        run.write(N_FRAMES)
        run.stop()
        assert follower.follow() == "stopped"
        assert follower.is_published()
    np.testing.assert_array_equal(record(settings, run.uid)["c2"], batch(settings, run.uid).c2)


def test_two_runs_interleaved(
    settings: Settings, begin_run: Callable[..., GrowingRun], process: FitProcess, movie: np.ndarray
) -> None:
    one, other = begin_run(), begin_run(movie=movie[::-1].copy())
    with following(settings, one.uid, process), following(settings, other.uid, process):
        for n in (50, 120, N_FRAMES):
            one.write(n)
            other.write(n)
        other.stop()
        one.stop()
    for run in (one, other):
        np.testing.assert_array_equal(record(settings, run.uid)["c2"], batch(settings, run.uid).c2)


def test_a_run_without_a_stop_document_is_closed_after_a_while(
    settings: Settings, begin_run: Callable[..., GrowingRun], process: FitProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin_run()
    run.write(100)
    with following(settings, run.uid, process) as (follower, _):
        assert eventually(lambda: follower.ended == ["idle"], 30.0)
    assert record(settings, run.uid)["c2"].shape == (3, 100, 100)


@pytest.mark.parametrize("what", ["publish_rows", "publish_mirror_image"])
def test_while_tiled_takes_nothing_frames_are_correlated_and_published_later(
    settings: Settings,
    begin_run: Callable[..., GrowingRun],
    process: FitProcess,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    import httpx

    from beamline_ml.live.record import LiveRecord

    run = begin_run()
    run.write(40)
    publish = getattr(LiveRecord, what)
    away = threading.Event()

    def sometimes(self: LiveRecord, rows: Any, **how: Any) -> None:
        if away.is_set():
            raise httpx.ConnectError("tiled is away")
        publish(self, rows, **how)

    monkeypatch.setattr(LiveRecord, what, sometimes)
    with following(settings, run.uid, process) as (follower, _):
        assert eventually(lambda: follower.n_frames == 40)
        away.set()
        run.write(160)
        assert eventually(lambda: follower.missed_updates > 0 and follower.n_frames == 160)
        away.clear()
        run.write(N_FRAMES)
        run.stop()
    np.testing.assert_array_equal(record(settings, run.uid)["c2"], batch(settings, run.uid).c2)


def test_what_tiled_did_not_take_at_the_end_is_offered_again(
    settings: Settings, begin_run: Callable[..., GrowingRun], process: FitProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    from beamline_ml.live.record import LiveRecord

    run = begin_run()
    run.write(60)
    publish = LiveRecord.publish_rows

    def not_the_last(self: LiveRecord, rows: Any, **how: Any) -> None:
        if rows.c2.shape[1] == 90:
            raise httpx.ConnectError("tiled is away")
        publish(self, rows, **how)

    with (
        closing(Catalogue(settings)) as catalogue,
        closing(Follower(settings, catalogue, run.uid, process)) as follower,
    ):
        assert follower.begin()
        follower.take(60)
        follower.publish_all()
        assert follower.is_published()
        monkeypatch.setattr(LiveRecord, "publish_rows", not_the_last)
        run.write(90)
        run.stop()
        assert follower.follow() == "stopped"
        assert not follower.is_published()
        assert record(settings, run.uid)["c2"].shape == (3, 60, 60)
        monkeypatch.setattr(LiveRecord, "publish_rows", publish)
        assert follower.is_published()
    np.testing.assert_array_equal(record(settings, run.uid)["c2"], batch(settings, run.uid).c2)


def test_what_a_killed_tiled_left_on_disk_sends_the_record_elsewhere(
    settings: Settings,
    begin_run: Callable[..., GrowingRun],
    process: FitProcess,
    tiled_server: Any,
    few_retries: None,
) -> None:
    run = begin_run()
    left_behind(tiled_server, settings.tiled.live, result_key(77, "growing latex", run.uid), "c2")
    with following(settings, run.uid, process):
        grow(run, [60, 130, N_FRAMES])
        run.stop()
    with closing(Catalogue(settings)) as catalogue:
        (node,) = (node for node in catalogue.live.values() if node.metadata["scan_uid"] == run.uid)
        assert node.item["id"].startswith(f"{result_key(77, 'growing latex', run.uid)}_")
    np.testing.assert_array_equal(record(settings, run.uid)["c2"], batch(settings, run.uid).c2)


def test_a_file_that_lags_behind_its_documents(
    settings: Settings, begin_run: Callable[..., GrowingRun], process: FitProcess
) -> None:
    run = begin_run()
    run.write(40)
    with following(settings, run.uid, process) as (follower, _):
        assert eventually(lambda: follower.n_frames == 40)
        follower.feed.ring(type("Told", (), {"shape": (60, 32, 24)})())  # announced before it is on disk
        time.sleep(0.5)
        run.write(N_FRAMES)
        run.stop()
    np.testing.assert_array_equal(record(settings, run.uid)["c2"], batch(settings, run.uid).c2)
