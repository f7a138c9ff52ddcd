"""A scanned beam whose path nobody recorded: found from the patterns, and followed beyond the run.

A beam spirals outwards over a known object of 600 grains, more slowly the farther out (``ProbeScan``; synthetic, as
the scan measured by Andrejevic et al., npj Comput Mater 10, 225 (2024), is not in this repository:
``measured_probe_scan.py`` reads it). Only the start is known, roughly. The law du/dt = F(u) of the beam's position is
fitted from nothing on 60 frames and followed for 60 more, where the beam comes to places that it has not been before;
then it is asked about scans that begin elsewhere.

    python docs/examples/probe_scan.py [--out FILE.png]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from beamline_ml.dynamics import PatternScattering, RigidObservations, RigidScattering, fit
from beamline_ml.dynamics.systems.probe_scan import ProbeScan, textured_object

SYSTEM = ProbeScan()
N_FRAMES, FRAME_S = 60, 0.2
START_UM = np.array([0.5, 0.1])


def main(out):
    """Simulate, scatter, fit, extrapolate, draw."""
    rng = np.random.default_rng(0)
    optics = PatternScattering(48, 1.0, probe_um=0.8)
    scattering = RigidScattering(optics, textured_object(600, 6.0, rng), beam_moves=True)
    times_s = FRAME_S * np.arange(2 * N_FRAMES)
    path = SYSTEM.trajectory(START_UM, times_s)
    truth = np.stack([scattering.intensity(u) for u in path])
    counts = rng.poisson(100.0 * truth[:N_FRAMES] / truth[:N_FRAMES].max())
    guess = START_UM + rng.normal(0, 0.01, 2)

    found = fit(RigidObservations(counts, times_s[:N_FRAMES], scattering, guess), time_budget_s=600.0)

    ahead = found.positions(times_s)
    off = np.hypot(*(ahead - path).T)
    center = np.array(SYSTEM.center_um)
    angle = np.angle(np.exp(1j * (np.arctan2(*(ahead - center).T) - np.arctan2(*(path - center).T))))
    used = optics.used
    corr = [np.corrcoef(a[used], b[used])[0, 1] for a, b in zip(found.patterns(times_s), truth, strict=True)]
    still = [np.corrcoef(truth[N_FRAMES - 1][used], b[used])[0, 1] for b in truth]
    print(f"chi-squared {found.chi2:.2f}; start to {np.hypot(*(found.start_um - START_UM)):.4f} um")
    for runs in (1, 2):
        part = slice((runs - 1) * N_FRAMES, runs * N_FRAMES)
        print(f"run {runs}: largest error {off[part].max():.4f} um, {np.abs(angle[part]).max():.4f} rad,", end=" ")
        print(f"least correlation {min(corr[part]):.4f} (last frame seen: {min(still[part]):.2f})")
    for start in ((-0.4, -0.2), (0.1, 0.3), (0.1, -0.7)):
        other = SYSTEM.trajectory(np.array(start), times_s[:N_FRAMES])
        miss = np.hypot(*(found.positions(times_s[:N_FRAMES], np.array(start)) - other).T).max()
        print(f"another scan from {start}: largest error {miss:.4f} um (extent {np.ptp(other, axis=0).max():.2f} um)")

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    axes[0].plot(*scattering.points_um.T, ".", color="0.8", ms=3)
    axes[0].plot(*path.T, "k--", label="true path")
    axes[0].plot(*ahead[:N_FRAMES].T, label="fit, the run")
    axes[0].plot(*ahead[N_FRAMES:].T, label="forecast")
    axes[0].set(xlabel="x (um)", ylabel="y (um)", aspect="equal", xlim=(-1.4, 1.6), ylim=(-1.7, 1.3))
    axes[0].set_title("beam on the object").set_in_layout(True)
    axes[1].semilogy(times_s, off)
    axes[1].set(xlabel="time (s)", ylabel="error of the position (um)", title=f"beam width {optics.probe_um} um\n")
    axes[2].plot(times_s, corr, label="fit and forecast")
    axes[2].plot(times_s, still, label="last frame, unchanged")
    axes[2].set(xlabel="time (s)", title="correlation with the true pattern\n", ylim=(-0.2, 1.03))
    for axis in axes[1:]:
        axis.axvline(times_s[N_FRAMES - 1], color="k", lw=0.8)
        axis.text(times_s[N_FRAMES - 1], 1.01, "end of the run", transform=axis.get_xaxis_transform())
    axes[0].legend(loc="upper right")
    axes[2].legend(loc="lower left")
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="probe_scan.png", help="figure (default: %(default)s)")
    main(parser.parse_args().out)
