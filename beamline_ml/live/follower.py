"""Follow one run from its first frames to its end: read what is announced, correlate, publish, fit, forecast."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import numpy as np
from tiled.client.utils import ClientError

from beamline_ml.correlation import fit_relaxation, g2_from_two_time
from beamline_ml.documents import beamline_places, describe_run
from beamline_ml.errors import RunAborted, StreamMissing
from beamline_ml.frames import FrameReader, open_frames
from beamline_ml.live.advising import advice_so_far
from beamline_ml.live.checkpoint import Checkpoint, Part
from beamline_ml.live.correlator import LiveCorrelator
from beamline_ml.live.feed import Announced, Announcement, RunFeed
from beamline_ml.live.forecaster import FitProcess, Forecaster
from beamline_ml.live.record import LiveRecord
from beamline_ml.live.scoring import Score, scores
from beamline_ml.live.tables import Ageing, forecast_table, g2_table, relaxation_table
from beamline_ml.records import G2, BoolArray, RelaxationFits, RunDescription, TwoTime
from beamline_ml.service.analysis import (
    MOST_ROWS_PUBLISHED,
    Subject,
    choose_qmap,
    sample_of_bad_pixels,
)
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.service.plan_conditions import goal_of
from beamline_ml.settings import Settings

FEWEST_FRAMES = 16
TICK_S = 0.1
FIRST_FRAMES_POLL_S = 0.2
TABLES_EVERY_S = 2.0
_SHARE = 0.6
"""Part of the time that publishing C2 may take."""
_SERVER_ERROR = 500
_PASSING = (httpx.HTTPError, ClientError, ConnectionError)

_log = logging.getLogger(__name__)


class Follower:
    """Everything that is held for one run while it goes on.

    Parameters
    ----------
    settings, catalogue
        Where everything is.
    uid
        The run.
    process
        Makes the live fits.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue, uid: str, process: FitProcess) -> None:
        self.uid = uid
        self._settings = settings
        self._goal = goal_of(settings.guidance)
        self._catalogue = catalogue
        self._checkpoint = Checkpoint(settings.state_dir / "live", uid)
        self._forecaster = Forecaster(process, settings.live.fit_budget_s)
        self._desk = ThreadPoolExecutor(1, "tables")
        self._search: tuple[int, Future[BoolArray]] | None = None
        self._tables: Future[None] | None = None
        self._saving: Future[None] | None = None
        self.feed: RunFeed
        self._reader: FrameReader | None = None
        self._correlator: LiveCorrelator
        self._record: LiveRecord | None = None
        self._run: RunDescription
        self._row_frames = 1
        self._known_bad = 0
        self._rows: TwoTime | None = None
        self._updated_at = self._tables_at = self._saved_at = -math.inf
        self._took_s = self._tables_took_s = 0.0
        self._is_whole = self._is_moved = self._is_over = False
        self._unpublished: list[Announcement] = []
        self.lags_s: list[float] = []
        """For each announcement of frames, time until their C2 was in tiled."""
        self.missed_updates = 0
        """Updates that tiled did not take; their rows went with the next one."""

    @property
    def n_frames(self) -> int:
        """The cursor: frames correlated so far."""
        return 0 if self._reader is None else self._correlator.n_frames

    def two_time(self) -> TwoTime:
        """C2 of all frames so far, unbinned."""
        return self._correlator.two_time()

    def begin(self) -> bool:
        """Look the run up; False while it has announced too few frames to know anything."""
        try:
            run = self._catalogue.raw[self.uid]
            description = describe_run(run, beamline_places(self._settings.metadata), fewest_frames=FEWEST_FRAMES)
        except (StreamMissing, RunAborted, KeyError):
            return False
        if description.n_frames < FEWEST_FRAMES:
            return False
        self._run = description
        data = self._settings.data
        reader = open_frames(
            run,
            description,
            allowed_roots=self._settings.allowed_roots,
            max_gib=data.max_gib,
            missing_file_wait_s=data.missing_file_wait_s,
        )
        self.feed = RunFeed(self._catalogue.raw, self.uid, description.stream, description.detector)
        self._prepare(Subject(run, description, 0, description.n_frames), reader)
        self._reader = reader
        return True

    def _begun(self) -> bool:
        """Wait for the first frames; False when the run ends without, or does not go on."""
        waited_since = time.monotonic()
        while not self.begin():
            metadata = self._catalogue.raw[self.uid].metadata
            if metadata.get("stop") or time.monotonic() - waited_since > self._settings.live.idle_limit_s:
                return self.begin()
            time.sleep(FIRST_FRAMES_POLL_S)
        return True

    def _prepare(self, subject: Subject, reader: FrameReader) -> None:
        analysis = self._settings.analysis
        qmap = choose_qmap(subject, analysis)
        n_sample = sample_of_bad_pixels(reader)
        self._row_frames = max(1, math.ceil(planned_frames(self._run) / MOST_ROWS_PUBLISHED))
        self._correlator = LiveCorrelator(
            qmap, self._run.frame_period_s, analysis.normalization, n_sample, self._row_frames
        )
        self._ageing = Ageing(planned_frames(self._run) // self._row_frames)
        arrays = self._checkpoint.load()
        if arrays is not None and self._correlator.resume(arrays):
            _log.info("run %s goes on at frame %d", self.uid[:8], self._correlator.n_frames)
        else:
            self._checkpoint.remove()

    def follow(self) -> str:
        """Follow the run until it is over, and say how it ended: 'stopped', 'idle', or 'empty' without frames."""
        if self._reader is None and not self._begun():
            return "empty"
        grown_at = time.monotonic()
        while True:
            announced = self.feed.wait(TICK_S)
            if self.take(announced.n_frames):
                grown_at = time.monotonic()
            if announced.stopped and self._correlator.n_frames >= announced.n_frames:
                self._finish()
                return "stopped"
            if time.monotonic() - grown_at > self._settings.live.idle_limit_s:
                self._finish()
                return "idle"
            self._update(announced)

    def take(self, n_frames: int) -> bool:
        """Read and correlate the frames up to ``n_frames``; whether there were any."""
        correlator = self._correlator
        if n_frames <= correlator.n_frames:
            return False
        assert self._reader is not None
        self._unpublished += self.feed.announcements()
        self._reader.grow(n_frames)
        for block in self._reader.blocks(first=correlator.n_frames, last=n_frames):
            correlator.add(block, self._reader.read)
        self._look_for_bad_pixels(correlator, self._reader)
        return True

    def _look_for_bad_pixels(self, correlator: LiveCorrelator, reader: FrameReader) -> None:
        """In a thread that C2 does not wait for: search the frames so far; here: leave out what a search has found."""
        if self._search is None and (n := correlator.n_to_search):
            self._search = n, self._desk.submit(correlator.search, reader.read, n)
        elif self._search is not None and self._search[1].done():
            n, found = self._search
            correlator.adopt(found.result(), n, reader.read)
            self._search = None

    def _update(self, announced: Announced) -> None:
        """Publish, when it is time to; the longer an update takes, the less often it is made."""
        now = time.monotonic()
        pause_s = max(self._settings.live.update_s, self._took_s / _SHARE)  # from one beginning to the next
        if self._correlator.n_frames >= 2 and self._unpublished and now - self._updated_at >= pause_s:
            self._publish()
            self._took_s = time.monotonic() - now
            self._updated_at = now
        if self._rows is not None and self._tables_are_due(now):
            self._publish_mirror_image()
            self._begin_tables(self._rows, announced)
        if now - self._saved_at >= self._settings.live.checkpoint_s and self._correlator.n_frames:
            self.save()

    def _tables_are_due(self, now: float) -> bool:
        """Every so often, so that they take half of the time at most, and at once when a fit has an answer."""
        if self._tables is not None and not self._tables.done():
            return False
        pause_s = max(TABLES_EVERY_S, 2 * max(self._took_s, self._tables_took_s))
        return self._forecaster.has_answer or now - self._tables_at >= pause_s

    def _publish(self) -> None:
        if self._correlator.n_frames < 2 * self._row_frames:
            return
        rows = self._correlator.rows()
        with self._tolerating_absence():
            record = self._opened_record()
            anew = self._correlator.rebuilt != self._known_bad
            record.publish_rows(rows, anew=anew)
            self._known_bad = self._correlator.rebuilt
            self._note_lag()
        self._rows = rows

    def _publish_mirror_image(self) -> None:
        """Make C2 symmetric in tiled; seldom, as it is a second write of as many values that nobody urgently needs."""
        if self._rows is not None:
            with self._tolerating_absence():
                self._opened_record().publish_mirror_image(self._rows)

    def _note_lag(self) -> None:
        n_frames, now = self._correlator.n_frames, time.time()
        self.lags_s += [now - at for n, at in self._unpublished if n <= n_frames]
        self._unpublished = [told for told in self._unpublished if told.n_frames > n_frames]

    def _begin_tables(self, rows: TwoTime, announced: Announced) -> None:
        """Have everything but C2 itself brought up to date, in a thread that C2 does not wait for."""
        if self._tables is not None:
            self._tables.result()
        self._tables = self._desk.submit(self._publish_tables, rows, announced)
        self._tables_at = time.monotonic()

    def _publish_tables(self, rows: TwoTime, announced: Announced) -> None:
        began = time.monotonic()
        g2, fits = relaxation_so_far(rows)
        with self._tolerating_absence():
            record = self._opened_record()
            for put in (
                lambda: record.publish_profile(rows),
                lambda: record.put_table(g2_table(g2, fits)),
                lambda: record.put_table(relaxation_table(fits)),
                lambda: self._publish_ageing(rows, record),
                lambda: self._forecast(rows, fits, record),
                lambda: record.tell(
                    health=self.health(announced), advice=advice_so_far(rows, g2, fits, self._goal, self.scores())
                ),
            ):
                if self._is_over and not announced.stopped:
                    return  # the last ones are on their way
                put()
        self._tables_took_s = time.monotonic() - began

    def _publish_ageing(self, rows: TwoTime, record: LiveRecord) -> None:
        if self._ageing.update(rows):
            record.put_table(self._ageing.table())

    def _forecast(self, rows: TwoTime, fits: RelaxationFits, record: LiveRecord) -> None:
        if self._settings.analysis.model == "none":
            return
        self._forecaster.collect()
        record.publish_forecasts(self._forecaster.forecasts)
        begin_s = float(rows.age_s[0])
        end_s = max(planned_frames(self._run) * self._run.frame_period_s, float(rows.age_s[-1]))
        until_s = begin_s + self._settings.analysis.forecast_factor * (end_s - begin_s)
        self._forecaster.consider(rows, fits, self._run.sample, until_s)
        if self._forecaster.forecasts:
            record.put_table(forecast_table(self.scores()))

    def scores(self) -> list[Score]:
        """What became of each forecast."""
        return [] if self._rows is None else scores(self._forecaster.forecasts, self._rows)

    def health_now(self) -> dict[str, Any]:
        """Health, when all announced frames are in."""
        return self.health(Announced(self._correlator.n_frames, False))

    def health(self, announced: Announced) -> dict[str, Any]:
        """How well the run is being followed."""
        return {
            "frames_announced": max(announced.n_frames, self._correlator.n_frames),
            "frames_correlated": self._correlator.n_frames,
            "frames_planned": planned_frames(self._run),
            "frames_read_by": None if self._reader is None else self._reader.source,
            "lag_s": round(float(np.median(self.lags_s[-20:])), 3) if self.lags_s else None,
            "lag_median_s": round(float(np.median(self.lags_s)), 3) if self.lags_s else None,
            "lag_p95_s": round(float(np.percentile(self.lags_s, 95)), 3) if self.lags_s else None,
            "missed_updates": self.missed_updates,
            "skipped_fits": self._forecaster.skipped,
            "forecasts": len(self._forecaster.forecasts),
            "forecast_refused": self._forecaster.refusal,
            "correlated_again": self._correlator.rebuilt,
            "catalogue_misses": self.feed.misses,
        }

    def _finish(self) -> None:
        """Everything of the run is in: publish the rows of C2 as the final analysis will see them.

        The rest of the record waits for :meth:`is_published`: the final analysis needs the processor now.
        """
        assert self._reader is not None
        self._is_whole, self._is_over = False, True
        self._forecaster.close()
        if self._unpublished and self._correlator.n_frames >= 2:
            self._publish()
        self._settle(self._correlator, self._reader)
        self._publish()

    def _settle(self, correlator: LiveCorrelator, reader: FrameReader) -> None:
        """Leave out the bad pixels that the final analysis finds, of which a search may be under way."""
        n, (n_begun, found) = correlator.n_to_settle, self._search or (0, None)
        if n and found is not None and n_begun == n:
            correlator.adopt(found.result(), n, reader.read)
        elif n:
            correlator.adopt(correlator.search(reader.read, n), n, reader.read)

    def is_published(self) -> bool:
        """Whether tiled has taken all of the run that is over; what is missing is offered first."""
        if not self._is_whole:
            self.publish_all()
        return self._is_whole

    def publish_all(self) -> None:
        """Bring everything in tiled up to date, at once."""
        missed = self.missed_updates
        self._publish()
        self._publish_mirror_image()
        if self._tables is not None:
            self._tables.result()
        if self._rows is not None:
            self._publish_tables(self._rows, Announced(self._correlator.n_frames, True))
        self._is_whole = self.missed_updates == missed

    def save(self) -> None:
        """Have a checkpoint written, in a thread that C2 does not wait for; not while one is being written."""
        if self._saving is not None:
            if not self._saving.done():
                return
            self._saving.result()
        self._saving = self._desk.submit(self._write, self._checkpoint.next_part(self._correlator))
        self._saved_at = time.monotonic()

    def _write(self, part: Part) -> None:
        """A run is followed also where no checkpoint can be written; then a restart begins it anew."""
        try:
            self._checkpoint.write(part)
        except OSError as error:
            _log.error("run %s: no checkpoint could be written: %s", self.uid[:8], error)

    def _opened_record(self) -> LiveRecord:
        if self._record is None:
            record = LiveRecord(self._catalogue.live, self._run, self._row_frames, elsewhere=self._is_moved)
            self._is_moved = False
            self._forecaster.forecasts[:0] = record.earlier_forecasts()
            self._record = record
        return self._record

    def tell(self, status: str, **news: Any) -> None:
        """Say in tiled what became of the run."""
        with self._tolerating_absence():
            self._opened_record().tell(status, **news)

    @contextmanager
    def _tolerating_absence(self) -> Iterator[None]:
        """While tiled is away nothing is published; the next update brings everything that is missing."""
        try:
            yield
        except _PASSING as error:
            self.missed_updates += 1
            _log.warning("run %s: an update was not taken: %r", self.uid[:8], error)
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= _SERVER_ERROR:
                self._begin_elsewhere()

    def _begin_elsewhere(self) -> None:
        """Give the record up for one under another key, after an error of tiled's own that its client met ten times.

        A tiled that was killed while it created an array may have left a directory that its catalogue does not know,
        and every later attempt to create an array there fails.
        """
        if self._record is None:
            return
        _log.warning("run %s: its live record is begun anew under another key", self.uid[:8])
        before, self._record = self._record, None
        self._is_moved = True
        with suppress(*_PASSING):  # what stays is cleared away with old records
            before.drop()

    def close(self) -> None:
        """Let go of everything."""
        self._desk.shutdown()
        self._forecaster.close()
        if self._reader is not None:
            self.feed.close()
            self._reader.close()

    def forget(self) -> None:
        """The final result is there: the checkpoint has served."""
        self._checkpoint.remove()


def planned_frames(run: RunDescription) -> int:
    """How many frames the plan announced; what has come, where it announced nothing."""
    xpcs = run.metadata.get("xpcs")
    planned = xpcs.get("n_frames") if isinstance(xpcs, dict) else None
    return max(run.n_frames, int(planned)) if isinstance(planned, int) and planned > 0 else run.n_frames


def relaxation_so_far(rows: TwoTime) -> tuple[G2, RelaxationFits]:
    """g2 and its fits."""
    g2 = g2_from_two_time(rows)
    return g2, fit_relaxation(g2, rows)
