"""Swimming colloids: diffusion, speed and turning from C2, and what a model without swimming says to the same data.

Janus particles swim at constant speed while their heading diffuses (active Brownian particles, as in the XPCS of Zinn
et al., New J. Phys. 24, 093007 (2022); equations in ``ActiveColloids``). Their exact field correlation is fitted to
the C2 of a short run and extrapolated to four times the run, and to rings that the fit has not seen. The graph model
knows diffusion and forces but no swimming; it is fitted as well and must say that it does not describe the data.

    python docs/examples/active_colloids.py [--out FILE.png]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from beamline_ml.dynamics import DynamicsModel, fit
from beamline_ml.dynamics.systems.active_colloids import ActiveColloids, fit_active
from beamline_ml.simulation import scatter_into_rings

SYSTEM = ActiveColloids(diffusion_um2_per_s=0.2, speed_um_per_s=3.0, rotational_diffusion_per_s=1.0)
STEP_S, EVERY, N_TIMES = 0.005, 4, 30
BOX_UM, N_BOXES, PER_BOX = 25.0, 48, 100
EDGES = np.array([[0.5, 0.8], [0.9, 1.2], [1.4, 1.7], [2.0, 2.3], [2.8, 3.2], [4.0, 4.4]])


def scattered(system, edges, seed):
    """Correlations of independent boxes of swimmers up to four runs."""
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0, BOX_UM, (N_BOXES, PER_BOX, 2))
    motions = [system.motion(x, STEP_S, 4 * N_TIMES * EVERY + 1, rng) for x in starts]
    x = np.stack([[at for k, at in enumerate(motion) if k % EVERY == 0][1:] for motion in motions], axis=1)
    return scatter_into_rings(x, BOX_UM, STEP_S * EVERY * np.arange(1, 4 * N_TIMES + 1), edges, 20.0, rng)


def main(out):
    """Simulate, scatter, fit, extrapolate, draw."""
    sample = scattered(SYSTEM, EDGES, 0)
    seen = sample.observations(N_TIMES)
    found = fit_active(seen)
    colloids = found.colloids
    lags = sample.times_s - sample.times_s[0]
    truth = np.stack([SYSTEM.field_correlation(q, lags) ** 2 for q in sample.q_inv_um])
    ahead = np.stack([colloids.field_correlation(q, lags) ** 2 for q in sample.q_inv_um])
    passive = fit(seen, DynamicsModel(interacting=False, n_members=18), time_budget_s=600.0)
    diffusive = np.exp(-2 * np.outer(sample.q_inv_um**2, passive.diffusion_um2_per_s * lags))

    for name, unit in (("diffusion", "um2_per_s"), ("speed", "um_per_s"), ("rotational_diffusion", "per_s")):
        key = f"{name}_{unit}"
        print(f"{name:21s} {getattr(colloids, key):.3f} +- {getattr(found, key + '_err'):.3f}, ", end="")
        print(f"true {getattr(SYSTEM, key):.3f}")
    late = slice(N_TIMES, None)
    print(f"|f|^2 from 1 to 4 runs  RMSE {np.sqrt(((ahead - truth)[:, late] ** 2).mean()):.4f}", end="")
    print(f" (diffusion alone {np.sqrt(((diffusive - truth)[:, late] ** 2).mean()):.4f})")
    print(f"model without swimming  D = {passive.diffusion_um2_per_s:.2f}, chi-squared {passive.chi2:.1f}", end="")
    print(f", describes the data: {passive.describes_data}; {passive.warnings[-1]}")
    other = scattered(SYSTEM, np.array([[0.3, 0.55], [1.2, 1.4], [3.4, 3.8]]), 1)
    for k, q in enumerate(other.q_inv_um):
        decay = np.array([np.diagonal(other.f2[k], n).mean() for n in range(N_TIMES)])
        off = colloids.field_correlation(q, lags[:N_TIMES]) ** 2 - decay
        print(f"another sample, new ring q = {q:.2f} 1/um   RMSE of |f|^2 {np.sqrt((off**2).mean()):.3f}")

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
    shown = ((0, "C0"), (1, "C1"), (3, "C2"))
    for axis, model, title in ((axes[0], ahead, "swimming and diffusion"), (axes[1], diffusive, "diffusion alone")):
        for k, color in shown:
            measured = [np.nanmean(np.diagonal(seen.c2[k], n)) - 1 for n in range(1, N_TIMES)]
            axis.plot(lags[1:N_TIMES], measured, "o", ms=3, color=color)
            axis.plot(lags, model[k], color=color, label=f"model, q = {sample.q_inv_um[k]:.2f} 1/um")
            axis.plot(lags, truth[k], "k--", lw=0.8)
        axis.axvline(lags[N_TIMES - 1], color="k", lw=0.8)
        axis.text(lags[N_TIMES - 1], 1.01, "end of the run", transform=axis.get_xaxis_transform())
        axis.plot([], [], "ko", ms=3, label="measured C2 - 1")
        axis.plot([], [], "k--", lw=0.8, label="truth")
        axis.set(xlabel="lag (s)", ylabel="|f(q, lag)|^2", title=title, ylim=(-0.03, 1.1))
        axis.title.set_y(1.05)
    axes[0].legend()
    axes[1].legend()
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="active_colloids.png", help="figure (default: %(default)s)")
    main(parser.parse_args().out)
