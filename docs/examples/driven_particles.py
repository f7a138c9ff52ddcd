"""Particles in a shear flow and in a field that gives their force a direction: both are found beside the force.

Sixty self-organising particles (equation in the code of Andrejevic et al., npj Comput Mater 10, 225 (2024)) are carried
along by a flow u(x) = u0 + G x, and a field along x makes their force depend on the direction of the pair, by
a(r) cos 2 phi. A detector of 64 x 64 pixels counts photons, 100 in the brightest pixel; the start is known.

A radial force alone does not explain the run, and says so by its chi-squared. With a linear drift and one harmonic the
fit finds force, direction and flow at once, and the patterns go on to four times the run. Last, flow and radial force
are given as known (a universal differential equation), and what the field does is found from an eighth of the run.

    python docs/examples/driven_particles.py [--out FILE.png]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import solve_ivp

from beamline_ml.dynamics import DynamicsModel, OneBody, PatternObservations, PatternScattering, fit
from beamline_ml.dynamics.systems.self_organising import SelfOrganising, disc_start

N, N_FRAMES, FRAME_S = 60, 40, 0.1
ALONE_S = 20.0  # for a fit that has no chance
OPTICS = PatternScattering(64, 1.0, probe_um=2.0)
SYSTEM = SelfOrganising()
FLOW = OneBody(np.array([0.05, -0.03]), np.array([[0.0, 0.06], [0.0, 0.0]]))
MODEL = {"n_coefficients": 24, "cutoff_um": 0.9}


def along_field(r):
    """What goes with cos 2 phi, in um/s."""
    return 0.08 * r * np.clip(1.0 - r / 0.75, 0.0, None) ** 2


def motion(start, times_s):
    """The truth, by sums over all pairs and an adaptive integrator."""

    def rate(_, y):
        x = y.reshape(start.shape)
        apart = x[:, None] - x[None]
        r = np.hypot(*apart.T).T + np.eye(len(x))
        phi = np.arctan2(apart[..., 1], apart[..., 0])
        force = SYSTEM.radial_force(r) + along_field(r) * np.cos(2.0 * phi)
        return ((force / r)[..., None] * apart).sum(axis=1).ravel() + FLOW.velocities(x).ravel()

    solved = solve_ivp(rate, times_s[[0, -1]], start.ravel(), "DOP853", times_s, rtol=1e-7, atol=1e-9)
    return solved.y.T.reshape(len(times_s), *start.shape)


def likeness(a, b):
    """Pearson correlation of two patterns outside the beam stop."""
    return np.corrcoef(a[OPTICS.used], b[OPTICS.used])[0, 1]


def error(force, true, r):
    """Relative, weighted by the number of pairs."""
    return np.sqrt(((force - true) ** 2 * r).sum() / (true**2 * r).sum())


def main(out):
    """Simulate, scatter, fit, extrapolate, draw."""
    times_s = FRAME_S * np.arange(4 * N_FRAMES + 1)
    start = disc_start(N, 0.87, np.random.default_rng(0))
    truth = np.stack([OPTICS.intensity(x) for x in motion(start, times_s)])
    counts = np.random.default_rng(1).poisson(100.0 * truth[:N_FRAMES] / truth[:N_FRAMES].max())
    run = PatternObservations(counts, times_s[:N_FRAMES], OPTICS, start)

    alone = fit(run, DynamicsModel(**MODEL), time_budget_s=ALONE_S)
    found = fit(run, DynamicsModel(**MODEL, drift="linear", angular_harmonics=1), time_budget_s=600.0)
    r = np.linspace(0.1, 0.72, 60)
    (force, sd), (angular, angular_sd) = found.kernel(r), found.angular_kernel(r)
    print(f"chi-squared of a radial force alone   {alone.chi2:.2f}; with drift and direction {found.chi2:.3f}")
    print(f"error of the radial force             {error(force, SYSTEM.radial_force(r), r):.3f}")
    print(f"error of its cos 2 phi                {error(angular[0], along_field(r), r):.3f}")
    drift, (_, gradient_sd) = found.drift, found.drift_deviations()
    print(
        f"shear rate (1/s)                      {drift.gradient_per_s[0, 1]:.4f} +- {gradient_sd[0, 1]:.4f}, true 0.06"
    )
    ahead, astray = found.patterns(times_s), alone.patterns(times_s)
    corr, lost = ([likeness(a, b) for a, b in zip(p, truth, strict=True)] for p in (ahead, astray))
    print(f"correlation with the truth at 4 runs  {corr[-1]:.4f}  (a radial force alone: {lost[-1]:.2f})")

    first = PatternObservations(counts[: N_FRAMES // 8], times_s[: N_FRAMES // 8], OPTICS, start)
    asked = DynamicsModel(**MODEL, angular_harmonics=1, drift="linear")
    told = DynamicsModel(**MODEL, angular_harmonics=1, known_drift=FLOW, known_force=SYSTEM.radial_force)
    short = [fit(first, model, time_budget_s=600.0) for model in (asked, told)]
    unaided, aided = (likeness(each.patterns(times_s)[N_FRAMES], truth[N_FRAMES]) for each in short)
    print(f"an eighth of the run, then at its end {aided:.4f}  (without knowing flow and radial force: {unaided:.4f})")

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    curves = (
        (force, sd, SYSTEM.radial_force(r), "radial part"),
        (angular[0], angular_sd[0], along_field(r), "times cos 2 phi"),
    )
    for value, spread, true, label in curves:
        (line,) = axes[0].plot(r, value, label=label)
        axes[0].fill_between(r, value - 2 * spread, value + 2 * spread, alpha=0.3, color=line.get_color())
        axes[0].plot(r, true, "k--", lw=1)
    axes[0].set(xlabel="distance (um)", ylabel="velocity per neighbour (um/s)", title="Force (dashed: truth)")
    axes[0].legend()
    axes[1].plot(times_s, corr, label="with drift and direction")
    axes[1].plot(times_s, lost, label="radial force alone")
    axes[1].axvline(times_s[N_FRAMES - 1], color="k", lw=0.8)
    axes[1].text(times_s[N_FRAMES], 0.05, " end of the run", transform=axes[1].get_xaxis_transform())
    axes[1].set(xlabel="time (s)", ylabel="correlation with the true pattern", title="Patterns ahead", ylim=(0, 1.03))
    axes[1].legend(loc="center right", bbox_to_anchor=(1.0, 0.75))
    path = found.positions(times_s[: 2 * N_FRAMES])
    axes[2].plot(*path.transpose(2, 0, 1), color="0.7", lw=0.6)
    axes[2].plot(*path[0].T, ".", ms=4, label="at the start")
    axes[2].plot(*path[-1].T, ".", ms=4, label=f"at {times_s[2 * N_FRAMES - 1]:.1f} s, forecast")
    axes[2].set(xlabel="x (um)", ylabel="y (um)", title="Particles in the shear", aspect="equal")
    axes[2].legend()
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="driven_particles.png", help="figure (default: %(default)s)")
    main(parser.parse_args().out)
