"""Live fits end, fail or are refused; whoever follows the run learns of it and goes on."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, cast

import numpy as np
import pytest

from beamline_ml.correlation import QMap, fit_relaxation, g2_from_two_time, two_time
from beamline_ml.live.forecaster import Answer, FitProcess, Forecaster, Question
from beamline_ml.records import RelaxationFits, TwoTime
from tests.correlation.speckle import counts
from tests.live.conftest import SHAPE


@pytest.fixture(scope="module")
def run() -> tuple[TwoTime, RelaxationFits]:
    qmap = QMap(1 + np.add.outer(np.arange(SHAPE[0]) * 3 // SHAPE[0], np.zeros(SHAPE[1], np.int64)))
    rows = two_time(counts(np.random.default_rng(5), qmap, 100, 4.0, 12.0), qmap, frame_period_s=0.01)
    return rows, fit_relaxation(g2_from_two_time(rows), rows)


class Promised:
    """In the place of the process: answers when the test says so."""

    def __init__(self) -> None:
        self.answers: list[Future[Answer]] = []
        self.began_from: list[Any] = []

    def submit(self, question: Question, before: Any | None) -> Future[Answer]:
        self.began_from.append(before)
        self.answers.append(Future())
        return self.answers[-1]


@pytest.mark.parametrize("error", [np.linalg.LinAlgError("did not converge"), BrokenProcessPool("killed")])
def test_a_fit_that_fails_is_told_and_the_next_one_starts_from_nothing(
    run: tuple[TwoTime, RelaxationFits], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    promised = Promised()
    forecaster = Forecaster(cast(FitProcess, promised), 10.0)
    assert forecaster.consider(*run, {}, 2.0)
    assert not forecaster.has_answer
    promised.answers[0].set_exception(error)
    assert forecaster.has_answer
    forecaster.collect()
    assert forecaster.refusal is not None
    if isinstance(error, np.linalg.LinAlgError):
        assert "did not converge" in forecaster.refusal
        assert "did not converge" in caplog.text
    forecaster._n_rows = 0  # as if the run had grown
    assert forecaster.consider(*run, {}, 2.0)
    assert promised.began_from == [None, None]


def test_an_answer_is_where_the_next_fit_starts_from(run: tuple[TwoTime, RelaxationFits]) -> None:
    promised = Promised()
    forecaster = Forecaster(cast(FitProcess, promised), 10.0)
    forecaster.consider(*run, {}, 2.0)
    promised.answers[0].set_result(Answer("the fit", None, "too slow"))
    forecaster.collect()
    assert forecaster.refusal == "too slow"
    forecaster._n_rows = 0
    forecaster.consider(*run, {}, 2.0)
    assert promised.began_from == [None, "the fit"]
