"""Self-organising particles seen in whole speckle patterns: the force is found, the patterns are extrapolated.

500 particles on a disc attract each other at short range and repel at contact (equation in the code of Andrejevic et
al., npj Comput Mater 10, 225 (2024), here ``SelfOrganising``). Beam, spheres and detector are theirs, too: 64 x 64
pixels count photons, 100 in the brightest one. The start is known (phase retrieval of one frame), the force is not: it
is fitted from zero. Then the patterns go on to four times the run, and the force is asked about three starts it has
never seen.

    python docs/examples/self_organising.py [--out FILE.png]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from beamline_ml.dynamics import DynamicsModel, PatternObservations, fit
from beamline_ml.dynamics.systems.self_organising import SelfOrganising, disc_start, published_optics

N, N_FRAMES, FRAME_S = 500, 50, 0.1
OPTICS = published_optics()
SYSTEM = SelfOrganising()


def likeness(a, b):
    """Pearson correlation of two patterns outside the beam stop."""
    return np.corrcoef(a[OPTICS.used], b[OPTICS.used])[0, 1]


def main(out):
    """Simulate, scatter, fit, extrapolate, draw."""
    rng = np.random.default_rng(0)
    times_s = FRAME_S * np.arange(4 * N_FRAMES + 1)
    start = disc_start(N, 2.5, rng)
    truth = np.stack([OPTICS.intensity(x) for x in SYSTEM.trajectory(start, times_s)])
    counts = rng.poisson(100.0 * truth[:N_FRAMES] / truth[:N_FRAMES].max())

    model = DynamicsModel(n_coefficients=24, cutoff_um=0.9)
    found = fit(PatternObservations(counts, times_s[:N_FRAMES], OPTICS, start), model, time_budget_s=600.0)

    r = np.linspace(0.1, 0.75, 60)
    force, sd = found.kernel(r)
    true = SYSTEM.radial_force(r)
    error = np.sqrt(((force - true) ** 2 * r).sum() / (true**2 * r).sum())
    ahead = found.patterns(times_s)
    corr = [likeness(a, b) for a, b in zip(ahead, truth, strict=True)]
    still = [likeness(truth[N_FRAMES - 1], b) for b in truth]
    print(f"error of the force                    {error:.3f}  (chi-squared {found.chi2:.2f})")
    print(f"correlation with the truth at 4 runs  {corr[-1]:.4f}  (the last frame itself: {still[-1]:.2f})")
    for seed in (101, 102, 103):
        other = disc_start(N, 2.5, np.random.default_rng(seed))
        end = OPTICS.intensity(SYSTEM.trajectory(other, times_s)[-1])
        print(f"another start ({seed}), at 4 runs       {likeness(found.patterns(times_s, other)[-1], end):.4f}")

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
    axes[0].fill_between(r, force - 2 * sd, force + 2 * sd, alpha=0.3, label="fit, 2 sd")
    axes[0].plot(r, true, "k--", label="truth")
    axes[0].set(xlabel="distance (um)", ylabel="velocity per neighbour (um/s)", title="Force: below 0 attracts")
    axes[1].plot(times_s, corr, label="forecast")
    axes[1].plot(times_s, still, label="last frame, unchanged")
    axes[1].axvline(times_s[N_FRAMES - 1], color="k", lw=0.8)
    axes[1].text(times_s[N_FRAMES], 0.05, "end of the run", transform=axes[1].get_xaxis_transform())
    axes[1].set(xlabel="time (s)", ylabel="correlation with the true pattern", title="Patterns ahead", ylim=(0, 1.03))
    for axis, pattern, title in ((axes[2], truth, "true"), (axes[3], ahead / found.photons_per_intensity, "forecast")):
        axis.imshow(np.log10(pattern[-1] + 1e2), vmin=2, vmax=4.5)
        axis.set(title=f"{title} pattern at {times_s[-1]:.0f} s (log)", xticks=[], yticks=[])
    axes[0].legend()
    axes[1].legend(loc="center right")
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="self_organising.png", help="figure (default: %(default)s)")
    main(parser.parse_args().out)
