"""Fits and forecasts of a growing run, one after the other in a process of low priority, each starting from the last.

Correlating never waits for a fit: while one is being made, newer frames are left to the next.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from beamline_ml.errors import FitRefused
from beamline_ml.live.scoring import KeptForecast
from beamline_ml.records import Forecast, RelaxationFits, TwoTime

_LOW_PRIORITY = 10
_log = logging.getLogger(__name__)
FEWEST_ROWS = 64
"""Rows of C2 before the first fit is tried."""
LEAST_BUDGET_S = 2.0
"""Of a fit, however short the run so far."""
GROWTH = 1.25
"""A new fit begins when the run is longer than at the last one by this factor."""


@dataclass(frozen=True)
class Question:
    """What a fit is made of."""

    two_time: TwoTime
    relaxation: RelaxationFits
    sample: Mapping[str, Any]
    """Entry ``sample`` of the start document."""
    until_s: float
    budget_s: float


@dataclass(frozen=True)
class Answer:
    """What a fit found."""

    fit: Any | None
    """:class:`beamline_ml.dynamics.DynamicsFit`; where the next fit starts from."""
    forecast: Forecast | None
    refusal: str | None


class FitProcess:
    """The one process that makes live fits, of all runs, one after the other; it starts when it is first needed."""

    def __init__(self) -> None:
        self._pool = self._fresh()

    @staticmethod
    def _fresh() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_step_back)

    def warm_up(self) -> None:
        """Start the process, and have it import what fits need, before the first run."""
        self._pool.submit(_warm)

    def submit(self, question: Question, before: Any | None) -> Future[Answer]:
        """Have a question answered; a process that died is replaced."""
        try:
            return self._pool.submit(answer, question, before)
        except BrokenProcessPool:
            self._pool = self._fresh()
            return self._pool.submit(answer, question, before)

    def abandon(self) -> None:
        """End the fit that is being made; the next one gets a fresh process."""
        self.close()
        self._pool = self._fresh()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


class Forecaster:
    """The forecasts of one run so far, and the next one.

    Parameters
    ----------
    process
        Makes the fits.
    budget_s
        Time that a fit may take, in s.
    """

    def __init__(self, process: FitProcess, budget_s: float) -> None:
        self._process = process
        self._budget_s = budget_s
        self._running: Future[Answer] | None = None
        self._last: Any | None = None
        self._n_rows = 0
        self.forecasts: list[KeptForecast] = []
        """All forecasts so far, the oldest first."""
        self.refusal: str | None = None
        """Why the last fit gave no forecast."""
        self._over = False
        self.skipped = 0
        """Updates that no fit was made for, because one was being made."""

    def consider(
        self, two_time: TwoTime, relaxation: RelaxationFits, sample: Mapping[str, Any], until_s: float
    ) -> bool:
        """Begin a fit of the run so far, when it has grown enough and none is being made."""
        n_rows = two_time.c2.shape[1]
        if self._over or n_rows < max(FEWEST_ROWS, GROWTH * self._n_rows):
            return False
        if self._running is not None:
            self.skipped += 1
            return False
        question = Question(two_time, relaxation, dict(sample), until_s, self._budget_for(two_time))
        self._running = self._process.submit(question, self._last)
        self._n_rows = n_rows
        return True

    def _budget_for(self, two_time: TwoTime) -> float:
        """No more than the run has taken so far: a short run should not end before its first forecast."""
        age_s = float(two_time.age_s[-1] - two_time.age_s[0])
        return min(self._budget_s, max(LEAST_BUDGET_S, age_s))

    @property
    def has_answer(self) -> bool:
        """Whether a fit has ended that :meth:`collect` has not taken in."""
        return self._running is not None and self._running.done()

    def collect(self) -> None:
        """Take in the answer, if one has arrived since the last call."""
        if self._running is None or not self.has_answer:
            return
        done, self._running = self._running, None
        found = self._found(done)
        self.refusal = found.refusal
        if found.fit is not None:
            self._last = found.fit
        if found.forecast is not None:
            self.forecasts.append(KeptForecast.of(found.forecast))

    def _found(self, done: Future[Answer]) -> Answer:
        """The answer; after a failure, which is told, a fit starts from nothing again."""
        error = None if done.cancelled() else done.exception()
        if error is None and not done.cancelled():
            return done.result()
        self._last = None
        if error is None or isinstance(error, BrokenProcessPool):
            return Answer(None, None, "The process that fits ended; the next fit starts afresh.")
        # A defect of the fit. The run is followed all the same.
        _log.error("a live fit failed", exc_info=error)
        return Answer(None, None, f"The fit failed ({error!r}); the watcher's log says where.")

    def close(self) -> None:
        """Ask for no more, and give up a fit that is being made: the final analysis needs the processor."""
        self._over = True
        if self._running is None or self._running.done():
            return
        if not self._running.cancel():
            self._process.abandon()
        self._running = None


def _step_back() -> None:
    os.nice(_LOW_PRIORITY)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"


def _warm() -> None:
    """Import what fits need, before the first one is asked for."""
    from beamline_ml.dynamics import fit, forecast  # noqa: F401


def answer(question: Question, before: Any | None) -> Answer:
    """Fit and extrapolate; a refusal is an answer."""
    from beamline_ml.dynamics import CorrelationObservations, DynamicsModel, fit, forecast

    try:
        observations = CorrelationObservations.of_run(question.two_time, question.relaxation, question.sample)
        state = before if before is not None and _same_rings(before, observations) else None
        found = fit(observations, DynamicsModel(), state=state, time_budget_s=question.budget_s)
        begin_s, end_s = (float(question.two_time.age_s[k]) for k in (0, -1))
        ahead = forecast(found, min(question.until_s, end_s + 2.0 * (end_s - begin_s)), own_speckles=True)
    except FitRefused as refusal:
        return Answer(None, None, str(refusal))
    return Answer(found, ahead, ahead.refused)


def _same_rings(before: Any, observations: Any) -> bool:
    return len(before.q_inv_um) == len(observations.q_inv_um) and before.stationary == observations.stationary
