"""Ensembles around different answers, regressed together; a fit goes on until its answer stays where it is."""

from __future__ import annotations

import time

import numpy as np
import pytest

from beamline_ml.dynamics import CorrelationObservations, DynamicsModel, fit
from beamline_ml.dynamics.compression import Compressed, RingRows
from beamline_ml.dynamics.correlation_fit import WIDER, explorable, fit_correlations
from beamline_ml.dynamics.correlation_progress import BETTER, POOLED, Answer, Progress
from beamline_ml.dynamics.ensembles import MEMBERS_PER_GROUP, Ensemble, groups_of, jackknife, pooled, without_each
from beamline_ml.dynamics.shells import noise_of_squared, squared
from beamline_ml.dynamics.statistical_gauss_newton import Belief, regress
from beamline_ml.dynamics.surrogates import make_scene

SLOPE = np.array([[1.0, -2.0, 0.5, 0.0, 3.0, 1.5], [0.3, 0.7, -1.0, 2.0, 0.0, 1.0]])
AT_ZERO = np.array([0.5, -0.2, 0.1, 0.4, -0.3, 0.2])
MEMBERS = 32
DIFFUSION = 0.02


def linear(centre: np.ndarray, shared: float, own: float, seed: int) -> Ensemble:
    """Members whose observable (log S, six rings at one time) is linear in two parameters, with noise."""
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(MEMBERS // 2, 2))
    parameters = centre + np.stack([half, -half], axis=1).reshape(MEMBERS, 2)
    group = groups_of(MEMBERS)
    rows = AT_ZERO + parameters @ SLOPE
    rows += shared * rng.normal(size=(group.max() + 1, 6))[group] + own * rng.normal(size=rows.shape)
    return Ensemble(parameters, group, np.zeros((MEMBERS, 6, 1, 1)), rows[:, :, None], np.ones(6))


def regressed(ensembles: list[Ensemble]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    together = pooled(ensembles)
    return regress(together.parameters, together.log_s[:, :, 0], together.group)


def test_different_centres_are_no_noise() -> None:
    """Without noise, ensembles wherever they lie give the exact normal equations at their common centre."""
    centres = [np.array([0.0, 0.0]), np.array([1.5, -1.0]), np.array([0.3, 2.0])]
    ensembles = [linear(centre, 0.0, 0.0, seed) for seed, centre in enumerate(centres)]
    information, pull, centre, chi2 = regressed(ensembles)
    there = AT_ZERO + centre @ SLOPE
    np.testing.assert_allclose(centre, np.mean(centres, axis=0), atol=1e-12)
    np.testing.assert_allclose(information, SLOPE @ SLOPE.T, rtol=1e-9)
    np.testing.assert_allclose(pull, -SLOPE @ there, rtol=1e-9)
    assert chi2 == pytest.approx((there**2).mean(), rel=1e-9)


def test_more_ensembles_less_noise() -> None:
    """The scatter of the best parameters falls as one over the root of the number of ensembles."""
    spread = []
    for n in (1, 4):
        best = []
        for trial in range(60):
            information, pull, centre, _ = regressed(
                [linear(np.zeros(2), 0.5, 0.5, 1000 * trial + k) for k in range(n)]
            )
            best.append(centre + np.linalg.solve(information, pull))
        spread.append(np.std(best, axis=0))
    ratio = spread[1] / spread[0]
    assert ((ratio > 0.3) & (ratio < 0.75)).all(), ratio


def best(parameters: np.ndarray, differences: np.ndarray, group: np.ndarray) -> np.ndarray:
    information, pull, centre, _ = regress(parameters, differences, group)
    return centre + np.linalg.solve(information, pull)


def test_one_set_of_surrogates_tells_how_far_others_would_scatter() -> None:
    """Many groups; the jackknife is known to say a little too much rather than too little."""
    trials = [pooled([linear(np.zeros(2), 0.3, 0.1, 1000 * t + k) for k in range(3)]) for t in range(60)]
    scatter = np.var([best(one.parameters, one.log_s[:, :, 0], one.group) for one in trials], axis=0)
    said = [
        jackknife(
            np.stack(
                [best(one.parameters[left], one.log_s[left, :, 0], group) for left, group in without_each(one.group)]
            )
        )
        for one in trials
    ]
    ratio = np.diag(np.mean(said, axis=0)) / scatter
    assert ((ratio > 0.7) & (ratio < 2.0)).all(), ratio


def test_a_group_that_died_leaves_no_gap() -> None:
    alive = linear(np.zeros(2), 0.1, 0.1, 0)
    kept = alive.group != 1
    left = Ensemble(alive.parameters[kept], alive.group[kept], alive.f2[kept], alive.log_s[kept], alive.n_modes)
    together = pooled([left, alive])
    assert sorted(set(together.group)) == list(range(2 * MEMBERS // MEMBERS_PER_GROUP - 1))
    assert np.isfinite(regressed([left, alive])[0]).all()


def brownian(n_times: int) -> CorrelationObservations:
    """Free Brownian motion in its closed form, C2 of contrast 0.3."""
    q, times = np.array([3.0, 5.0, 7.0, 9.0]), 0.25 * np.arange(1, n_times + 1)
    lag = np.abs(times[:, None] - times)
    c2 = 1.0 + 0.3 * np.exp(-2.0 * DIFFUSION * q[:, None, None] ** 2 * lag)
    one = np.ones(len(q))
    return CorrelationObservations(
        c2=c2,
        c2_err=np.full_like(c2, 0.002),
        structure_factor=np.ones((len(q), n_times)),
        q_inv_um=q,
        times_s=times,
        number_density_per_um2=12.0,
        n_speckles=300.0 * one,
        contrast=0.3 * one,
        contrast_err=0.01 * one,
    )


PATIENCE = 40
"""Stages after the first ones: how many a fit needs depends on its draws, and so on the processor's rounding."""
MODEL = DynamicsModel(n_coefficients=6, cutoff_um=0.8, n_boxes=6, n_per_box=200, n_members=32, steps_per_time=3)


@pytest.mark.parametrize("n_times", [6, 10])
def test_a_fit_ends_where_it_has_settled(n_times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamline_ml.dynamics.correlation_fit.MOST_MORE_STAGES", PATIENCE)
    seen = brownian(n_times)
    progress = fit_correlations(seen, MODEL, make_scene(seen, MODEL), time.monotonic() + 300.0, seed=1)
    assert progress.settled
    assert len(progress.recent) >= 2
    assert np.exp(progress.answer.belief.mean[-1]) == pytest.approx(DIFFUSION, rel=0.2)


def after(*misfits: float) -> Progress:
    """A fit whose stages on the whole run came to such misfits; D tells which is which."""
    answers = [Answer(Belief(np.array([float(k)]), np.eye(1), 2.0, 1.0), 0.0, each) for k, each in enumerate(misfits)]
    return Progress(answers[-1].belief, 10, answers=answers)


@pytest.mark.parametrize(
    ("misfits", "settled", "best"),
    [
        ((2.0, 1.5, 1.2), False, 2),  # too few to tell
        ((2.0, 1.5, 1.2, 1.0), False, 3),
        ((2.0, 1.5, 1.2, 1.3, 1.19), True, 4),
        ((1.1, 1.4, 1.2, 1.3), True, 2),  # the first are of fewer ensembles than are regressed together
        ((3.0, 1.2, 1.9, 1.8), False, 1),  # but the others went astray
        ((3.0, 1.2, 1.9, 1.3, 1.3), True, 3),
        ((9.0, 6.9, 6.9, 6.8, 6.8, 6.7), True, 5),
        ((9.0, 8.0, 7.0, 6.9, 6.8), False, 4),  # far from the answer there is more patience
        ((9.0, 8.0, 7.0, 6.9, 6.5), False, 4),
    ],
)
def test_stages_go_on_while_answers_get_better_and_the_best_is_kept(
    misfits: tuple[float, ...], settled: bool, best: int
) -> None:
    assert (POOLED, BETTER) == (3, 0.05)
    progress = after(*misfits)
    assert progress.settled == settled
    assert progress.answer.belief.mean[0] == best


@pytest.mark.parametrize(
    ("misfits", "falls"),
    [((1.2,), True), ((1.36, 1.21, 1.07), False), ((1.9, 1.6, 1.3), True), ((9.0, 5.0, 4.6), False)],
)
def test_a_last_stage_that_still_brought_much_is_said(misfits: tuple[float, ...], falls: bool) -> None:
    assert after(*misfits).still_falls == falls


def test_what_an_ensemble_does_not_show_is_not_forgotten() -> None:
    """Its noise hides the second direction and not the first, which the data know better than before."""
    before = np.diag([0.4, 0.01, 0.04])
    progress = Progress(Belief(np.zeros(3), np.diag([0.04, 1.0, 0.04]), 2.0, 1.0), 10, explored=before)
    drawn = np.diag(explorable(progress, MODEL))
    assert (drawn < WIDER**2 * np.diag(before)).all()
    assert drawn[1] > 0.5 * WIDER**2 * before[1, 1]
    assert drawn[0] == pytest.approx(0.04, rel=0.05)


def test_members_own_noise_is_no_misfit() -> None:
    """The mean of few members is off by what they scatter; that is taken off, and what is left is the misfit."""
    rings = tuple(RingRows(np.zeros((1, 1), bool), np.ones((1, 1)), np.array([off])) for off in AT_ZERO - 0.5)
    target = Compressed(rings, 1, np.ones(6), with_s=True)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        log_s = AT_ZERO + 0.8 * rng.normal(size=(8, 6))
        f2 = np.zeros((8, 6, 1, 1))
        found.append(Ensemble(np.zeros((8, 1)), np.arange(8), f2, log_s[:, :, None], np.ones(6)).misfit(target))
    assert np.mean(found) == pytest.approx(0.5**2, abs=0.03)


def seen_on_modes(f: np.ndarray, n_modes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """f^2 (n, 1, 2, 2) and log S (n, 1, 2) of laws with field correlations (n,), each on Gaussian modes of its own."""
    first, more = rng.normal(size=(2, len(f), n_modes, 2)) @ np.array([1.0, 1j]) / np.sqrt(2.0)
    fields = np.stack([first, f[:, None] * first + np.sqrt(1.0 - f[:, None] ** 2) * more], axis=1)
    gram = (fields @ fields.conj().transpose(0, 2, 1)).real / n_modes
    s = np.diagonal(gram, axis1=1, axis2=2)
    correlation = gram / np.sqrt(s[:, :, None] * s[:, None, :])
    return squared(correlation[None], np.array([n_modes]))[0][:, None], np.log(s)[:, None]


@pytest.mark.parametrize("f", [0.0, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("n_modes", [15, 200])
def test_noise_of_few_modes_is_known(f: float, n_modes: int) -> None:
    f2, log_s = seen_on_modes(np.full(20_000, f), n_modes, np.random.default_rng(0))
    expected = noise_of_squared(np.array([[f**2]]), np.array([n_modes]))[0, 0]
    assert f2[:, 0, 0, 1].mean() == pytest.approx(f**2, abs=0.002)
    assert f2[:, 0, 0, 1].var() == pytest.approx(expected, rel=0.25)
    assert log_s.var() == pytest.approx(1.0 / n_modes, rel=0.1)


def test_a_band_holds_what_laws_differ_by_and_not_the_noise_of_single_members() -> None:
    """The mean of members that have particles of their own is off by that noise over the root of their number."""
    rng = np.random.default_rng(0)
    of_laws, of_mean, of_members, said = [], [], [], []
    for _ in range(200):
        laws = 0.7 + 0.03 * rng.normal(size=16)
        f2, log_s = seen_on_modes(laws, 40, rng)
        members = Ensemble(laws[:, None], np.arange(16), f2, log_s, np.array([40.0]))
        said.append(members.f2_variance()[0, 0, 1])
        of_laws.append((laws**2).var())
        of_mean.append(f2[:, 0, 0, 1].mean() - (laws**2).mean())
        of_members.append(f2[:, 0, 0, 1].var())
    expected = np.mean(of_laws) + np.var(of_mean)
    assert expected < np.mean(said) < 1.6 * expected
    assert np.mean(said) < 0.5 * np.mean(of_members)


def test_an_answer_that_still_moves_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more stages than the first ones: what is left open is a warning, and the stages would have closed it."""
    monkeypatch.setattr("beamline_ml.dynamics.correlation_fit.MOST_MORE_STAGES", 0)
    monkeypatch.setattr("beamline_ml.dynamics.correlation_fit.HORIZONS", (1.0,))
    monkeypatch.setattr("beamline_ml.dynamics.correlation_fit.SPREAD", (1.5,))
    early = fit(brownian(10), MODEL, time_budget_s=300.0)
    assert any("not settled" in said for said in early.warnings)
    monkeypatch.setattr("beamline_ml.dynamics.correlation_fit.MOST_MORE_STAGES", PATIENCE)
    assert not any("not settled" in said for said in fit(brownian(10), MODEL, time_budget_s=300.0).warnings)
