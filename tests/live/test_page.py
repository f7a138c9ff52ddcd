"""The live page in a real browser: it shows the run, grows with it, and fits on a phone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from beamline_ml.live.follower import Follower
from beamline_ml.live.page.server import PageServer
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.settings import Settings
from tests.live.chromium import CHROMIUM, running_chromium
from tests.live.conftest import N_FRAMES, GrowingRun, advance

PATIENCE_MS = 20_000
DRAWN = (
    "said => Bokeh.documents.some(d => [...d._all_models.values()].some(m => (m.text || '').toString().includes(said)))"
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, then run again")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def page_uri(settings: Settings) -> Iterator[str]:
    """A page server of this test's own."""
    made: list[PageServer] = []
    ready = threading.Event()

    def serve() -> None:
        import asyncio

        asyncio.set_event_loop(asyncio.new_event_loop())
        made.append(PageServer(settings))
        made[0].server.io_loop.add_callback(ready.set)
        made[0].run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(30)
    yield made[0].uri
    made[0].poller.close()
    made[0].server.io_loop.add_callback(made[0].server.io_loop.stop)
    thread.join(10)


def shot(page: Any, name: str) -> None:
    """Keep a picture where somebody asked for them."""
    if folder := os.environ.get("BEAMLINE_ML_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def advised(settings: Settings, run: GrowingRun) -> str:
    """Why the run is worth going on with or not, as its record says."""
    with closing(Catalogue(settings)) as catalogue:
        (node,) = (node for node in catalogue.live.values() if node.metadata["scan_uid"] == run.uid)
        return str(node.metadata["advice"]["reason"])


def test_the_page_shows_the_run_and_grows_with_it(
    browser: Any, page_uri: str, settings: Settings, followed: tuple[GrowingRun, Follower]
) -> None:
    run, follower = followed
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(page_uri)
    page.get_by_text("growing latex").first.wait_for(timeout=PATIENCE_MS)
    page.get_by_text(run.uid[:8]).first.wait_for(timeout=PATIENCE_MS)
    page.get_by_text("LIVE", exact=True).first.wait_for(timeout=PATIENCE_MS)
    page.get_by_text("100 frames announced, 100 correlated").wait_for(timeout=PATIENCE_MS)
    page.get_by_text(advised(settings, run)).first.wait_for(timeout=PATIENCE_MS)
    assert page.locator("canvas").count() >= 4
    shot(page, "live-100")
    run.write(N_FRAMES)
    advance(follower, N_FRAMES)
    page.get_by_text(f"{N_FRAMES} correlated").wait_for(timeout=PATIENCE_MS)
    shot(page, "live-240")
    assert complaints == []
    assert {httpx.URL(url).host for url in requested if not url.startswith("data:")} == {"127.0.0.1"}, "no internet"
    page.close()


def test_another_ring_can_be_chosen(browser: Any, page_uri: str, followed: tuple[GrowingRun, Follower]) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(page_uri)
    rings = page.get_by_label("q ring")
    rings.wait_for(timeout=PATIENCE_MS)
    page.locator("canvas").nth(3).wait_for(state="attached", timeout=PATIENCE_MS)
    page.get_by_text("LIVE", exact=True).first.wait_for(timeout=PATIENCE_MS)
    rings.locator("option").nth(2).wait_for(state="attached", timeout=PATIENCE_MS)
    chosen = rings.locator("option").nth(0).inner_text().split()[0]
    rings.select_option(index=0)
    page.wait_for_function(DRAWN, arg=f"q = {chosen} ", timeout=PATIENCE_MS)
    page.close()


def test_the_page_fits_on_a_phone(browser: Any, page_uri: str, followed: tuple[GrowingRun, Follower]) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page.goto(page_uri)
    page.get_by_text("LIVE", exact=True).first.wait_for(timeout=PATIENCE_MS)
    page.locator("canvas").first.wait_for(timeout=PATIENCE_MS)
    time.sleep(1.0)
    shot(page, "phone")
    widest = page.evaluate("document.documentElement.scrollWidth")
    assert widest <= 400, "no scrolling sideways"
    page.close()


def test_a_name_with_markup_is_shown_as_text(
    browser: Any, page_uri: str, settings: Settings, raw: Any, begin_run: Callable[..., GrowingRun]
) -> None:
    from beamline_ml.live.record import LiveRecord
    from beamline_ml.records import Geometry, RunDescription

    run = RunDescription(
        uid="0" * 36,
        scan_id=5,
        sample_name="<img src=x onerror=document.title='owned'>",
        sample={"name": "<img src=x onerror=document.title='owned'>"},
        geometry=Geometry(8.0, 5.0, 75e-6, 1.0, 1.0),
        frame_period_s=0.01,
        exposure_s=0.01,
        n_frames=2,
        frame_shape=(4, 4),
        started_at=time.time() + 60,
        finished=False,
        exit_status=None,
    )
    with closing(Catalogue(settings)) as catalogue:
        record = LiveRecord(catalogue.live, run, 1)
        page = browser.new_page()
        page.goto(page_uri)
        page.get_by_text("onerror").first.wait_for(timeout=PATIENCE_MS)
        assert page.title() == "beamline-ml live"
        page.close()
        record.drop()


def test_an_empty_beamline_says_so(settings: Settings) -> None:
    from beamline_ml.live.page.document import Page
    from beamline_ml.live.page.poller import Poller

    page = Page(Poller(settings), {"tiled": "http://127.0.0.1:9", "Prefect": "http://127.0.0.1:9"})
    page.refresh()
    assert "No run yet" in page.said
