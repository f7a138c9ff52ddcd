"""A fluctuating source: the law of a hidden state, seen only through the light that it scatters.

A rigid cloud of 400 scatterers goes round in the beam as prey and predators do (Lotka-Volterra, as in Andrejevic et
al., npj Comput Mater 10, 225 (2024); ``FluctuatingSource``). Its shape is known, its start roughly. The law of its
centre, du/dt = F(u), is fitted from nothing (a polynomial of degree 3) on one round, and followed for eight. Then the
law is asked about three other orbits.

    python docs/examples/fluctuating_source.py [--out FILE.png]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from beamline_ml.dynamics import PatternScattering, RigidObservations, RigidScattering, fit
from beamline_ml.dynamics.systems.fluctuating_source import FluctuatingSource, cloud

SYSTEM = FluctuatingSource(length_um=1.0)
N_FRAMES, FRAME_S, ROUNDS = 80, 0.2, 8
START_UM = np.array([0.3, 0.2])


def main(out):
    """Simulate, scatter, fit, extrapolate, draw."""
    rng = np.random.default_rng(0)
    scattering = RigidScattering(PatternScattering(48, 1.0, probe_um=1.0), cloud(400, 1.0, rng))
    times_s = FRAME_S * np.arange(ROUNDS * N_FRAMES + 1)
    path = SYSTEM.trajectory(START_UM, times_s)
    truth = np.stack([scattering.intensity(u) for u in path])
    counts = rng.poisson(100.0 * truth[:N_FRAMES] / truth[:N_FRAMES].max())
    guess = START_UM + rng.normal(0, 0.01, 2)

    found = fit(RigidObservations(counts, times_s[:N_FRAMES], scattering, guess), time_budget_s=600.0)

    ahead = found.positions(times_s)
    off = np.hypot(*(ahead - path).T)
    used = scattering.optics.used
    corr = np.array([np.corrcoef(a[used], b[used])[0, 1] for a, b in zip(found.patterns(times_s), truth, strict=True)])
    miss = found.velocity(path) - SYSTEM.velocity(path)
    print(f"error of the law along the orbit  {np.sqrt((miss**2).sum() / (SYSTEM.velocity(path) ** 2).sum()):.4f}")
    print(f"chi-squared {found.chi2:.2f}; start to {np.hypot(*(found.start_um - START_UM)):.4f} um")
    for rounds in (1, 4, 8):
        print(f"up to {rounds} runs: largest error {off[: rounds * N_FRAMES].max():.4f} um,", end=" ")
        print(f"least correlation {corr[: rounds * N_FRAMES].min():.4f}")
    drift = np.ptp(SYSTEM.invariant(ahead)) / np.ptp(SYSTEM.invariant(np.array([[0.0, 0.0], START_UM])))
    print(f"what the motion conserves changes by {drift:.3f} of the orbit's own value above the fixed point")
    for start in ((0.2, 0.0), (-0.2, 0.1), (0.5, 0.0)):
        other = SYSTEM.trajectory(np.array(start), times_s[: 4 * N_FRAMES])
        miss = np.hypot(*(found.positions(times_s[: 4 * N_FRAMES], np.array(start)) - other).T).max()
        print(f"another orbit from {start}: largest error in 4 runs {miss:.4f} um (extent {np.ptp(other):.2f} um)")

    figure, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained", width_ratios=(1, 2, 1))
    axes[0].plot(*path[:N_FRAMES].T, "k", lw=4, alpha=0.3, label="truth, the run")
    axes[0].plot(*ahead.T, label="forecast, 8 runs", lw=0.8)
    axes[0].set(xlabel="x (um)", ylabel="y (um)", title="centre of the source", aspect="equal")
    axes[1].plot(times_s, path[:, 0], "k--", label="truth")
    axes[1].plot(times_s, ahead[:, 0], label="fit and forecast")
    axes[1].axvline(times_s[N_FRAMES], color="k", lw=0.8)
    axes[1].text(times_s[N_FRAMES], 1.01, "end of the run", transform=axes[1].get_xaxis_transform())
    axes[1].set(xlabel="time (s)", ylabel="x (um)")
    axes[2].plot(times_s, corr)
    axes[2].set(xlabel="time (s)", title="correlation with the true pattern", ylim=(0, 1.03))
    axes[0].legend(loc="center")
    axes[1].legend(loc="lower left")
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="fluctuating_source.png", help="figure (default: %(default)s)")
    main(parser.parse_args().out)
