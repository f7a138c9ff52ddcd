"""Charged colloids after a quench: force and diffusion from C2 and S(q, t) alone, forecast to four times the run.

Spheres of 200 nm in water are thrown in at random and push each other apart (screened repulsion, Stokes-Einstein
diffusion: ``BrownianColloids``). The beam is large: no start is known and no phases, only the correlations of speckle
rings. The fit starts from no force. What it found is then asked about a start that it has never seen, a square crystal
that melts.

    python docs/examples/brownian_colloids.py [--out FILE.png]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from beamline_ml.dynamics import DynamicsModel, fit, forecast
from beamline_ml.dynamics.brownian import brownian_motion
from beamline_ml.dynamics.systems.brownian_colloids import BrownianColloids
from beamline_ml.simulation import scatter_into_rings

SYSTEM = BrownianColloids()
N_BOXES, PER_BOX, DENSITY = 4, 900, 4.0
BOX_UM = np.sqrt(PER_BOX / DENSITY)
STEP_S, EVERY, N_TIMES = 0.0005, 8, 16
EDGES = np.array([[1.5, 3.0], [3.0, 4.5], [4.5, 6.0], [6.0, 7.5], [7.5, 9.0], [9.0, 10.5], [10.5, 12.0]])


def run(spline, diffusion, starts, rng):
    """Boxes of particles under a force, seen on rings at every eighth step."""
    n_steps = 4 * N_TIMES * EVERY + 1
    motions = [brownian_motion(x, BOX_UM, spline, SYSTEM.cutoff_um, diffusion, STEP_S, n_steps, rng) for x in starts]
    x = np.stack([[at for k, at in enumerate(m) if k % EVERY == 0][1:] for m in motions], axis=1)
    return scatter_into_rings(x, BOX_UM, STEP_S * EVERY * np.arange(1, 4 * N_TIMES + 1), EDGES, 50.0, rng)


def main(out):
    """Simulate, scatter, fit, extrapolate, draw."""
    rng = np.random.default_rng(0)
    true_d = SYSTEM.diffusion_um2_per_s
    scattered = run(SYSTEM.spline(), true_d, rng.uniform(0, BOX_UM, (N_BOXES, PER_BOX, 2)), rng)
    model = DynamicsModel(cutoff_um=SYSTEM.cutoff_um, n_coefficients=12)
    found = fit(scattered.observations(N_TIMES), model, time_budget_s=600.0)
    ahead = forecast(found, scattered.times_s[-1])

    r = np.linspace(0.2, 0.9, 50)
    force, sd = found.kernel(r)
    true = SYSTEM.radial_force(r)
    error = np.sqrt(((force - true) ** 2 * r).sum() / (true**2 * r).sum())
    late = np.triu_indices(4 * N_TIMES, 1)
    late = tuple(index[late[1] >= N_TIMES] for index in late)
    truth = 1.0 + scattered.f2
    miss = np.sqrt(((ahead.c2 - truth)[:, late[0], late[1]] ** 2).mean())
    inside = ((ahead.lower <= truth) & (truth <= ahead.upper))[:, late[0], late[1]].mean()
    d, d_err = found.diffusion_um2_per_s, found.diffusion_um2_per_s_err
    print(f"diffusion            {d:.2f} +- {d_err:.2f}, true {true_d:.2f}")
    print(f"error of the force   {error:.2f}  (resolution pi / q_max = {np.pi / EDGES.max():.2f} um)")
    print(f"fit                  chi-squared {found.chi2:.1f}, describes the data: {found.describes_data}")
    print(f"C2 from 1 to 4 runs  RMSE {miss:.3f} by {ahead.method}, {inside:.0%} of the truth inside the 95 % band")
    lattice = (np.stack(np.meshgrid(*2 * [np.arange(30)]), -1).reshape(-1, 2) + 0.5) * BOX_UM / 30
    starts = np.repeat(lattice[None], N_BOXES, 0)
    melts = run(SYSTEM.spline(), true_d, starts, rng)
    guess = run(found.coefficients, found.diffusion_um2_per_s, starts, rng)
    free = run(np.zeros(8), found.diffusion_um2_per_s, starts, rng)
    for name, other in (("fit", guess), ("no force", free)):
        off = np.sqrt(((other.f2 - melts.f2)[:, late[0], late[1]] ** 2).mean())
        print(f"crystal start        |f|^2 of the {name}: RMSE {off:.3f}")
    draw(out, r, (force, sd, true), ahead, truth)


def draw(out, r, forces, ahead, truth):
    """Force and C2 against the truth."""
    force, sd, true = forces
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    axes[0].fill_between(r, force - 2 * sd, force + 2 * sd, alpha=0.3, label="fit, 2 sd")
    axes[0].plot(r, true, "k--", label="truth")
    axes[0].set(xlabel="distance (um)", ylabel="velocity per neighbour (um/s)", title="Force: above 0 repels")
    for k, begin, color in ((0, 0, "C0"), (1, 0, "C1"), (0, N_TIMES, "C2"), (1, N_TIMES, "C3")):
        label = f"q = {1e4 * ahead.q_inv_angstrom[k]:.1f} 1/um, t1 = {1e3 * ahead.times_s[begin]:.0f} ms"
        t2, row = 1e3 * ahead.times_s[begin + 1 :], (k, begin, slice(begin + 1, None))
        axes[1].fill_between(t2, ahead.lower[row], ahead.upper[row], alpha=0.2, color=color)
        axes[1].plot(t2, ahead.c2[row], color=color, label=label)
        axes[1].plot(t2, truth[row], "k--", lw=0.8)
    axes[1].axvline(1e3 * ahead.observed_until_s, color="k", lw=0.8)
    axes[1].text(1e3 * ahead.observed_until_s, 1.01, "end of the run", transform=axes[1].get_xaxis_transform())
    axes[1].set(xlabel="age t2 (ms)", ylabel="C2(q, t1, t2)", xlim=(0, 3.2e3 * ahead.observed_until_s), ylim=(0.8, 2.3))
    axes[1].plot([], [], "k--", lw=0.8, label="truth")
    for axis in axes:
        axis.legend()
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="brownian_colloids.png", help="figure (default: %(default)s)")
    main(parser.parse_args().out)
