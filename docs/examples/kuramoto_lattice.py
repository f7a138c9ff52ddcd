"""A lattice of oscillators that fall into step: the coupling over distance from speckle patterns alone.

16 x 16 oscillators pull near phases together and push farther ones apart (Kuramoto lattice as in the code of Andrejevic
et al., npj Comput Mater 10, 225 (2024); ``KuramotoLattice``). Each scatters cos(phase), nothing moves. Start phases are
known, the coupling is fitted from zero. Then the patterns go on to four times the run, and the coupling is asked about
three other starts.

    python docs/examples/kuramoto_lattice.py [--out FILE.png]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from beamline_ml.dynamics import DynamicsModel, PatternScattering, PhaseObservations, PhaseScattering, fit
from beamline_ml.dynamics.systems.kuramoto_lattice import KuramotoLattice

SYSTEM = KuramotoLattice(size=16)
N_FRAMES, FRAME_S, PHOTONS = 30, 0.2, 100.0
SCATTERING = PhaseScattering(PatternScattering(64, 0.7, probe_um=1.5), charge=0.0, phase_contrast=1.0)


def likeness(a, b):
    """Pearson correlation of two patterns outside the beam stop."""
    return np.corrcoef(a[SCATTERING.used], b[SCATTERING.used])[0, 1]


def main(out):
    """Simulate, scatter, fit, extrapolate, draw."""
    rng = np.random.default_rng(0)
    times_s, start = FRAME_S * np.arange(4 * N_FRAMES + 1), SYSTEM.start(rng)
    states = SYSTEM.trajectory(start, times_s)
    truth = np.stack([SCATTERING.intensity(state) for state in states])
    counts = rng.poisson(PHOTONS * truth[:N_FRAMES] / truth[:N_FRAMES].max())

    seen = PhaseObservations(counts, times_s[:N_FRAMES], SCATTERING, start, mobile=False)
    found = fit(seen, DynamicsModel(n_coefficients=14, cutoff_um=1.7), time_budget_s=600.0)

    r = np.linspace(0.2, 1.6, 60)
    (values, sd), true = found.kernel(r), SYSTEM.kernel(r)
    error = np.sqrt(((values[2] - true) ** 2 * r).sum() / (true**2 * r).sum())
    ahead = found.patterns(times_s)
    corr = [likeness(a, b) for a, b in zip(ahead, truth, strict=True)]
    still = [likeness(truth[N_FRAMES - 1], b) for b in truth]
    off = np.angle(np.exp(1j * (found.states(times_s)[-1, :, 2] - states[-1, :, 2])))
    print(f"error of the coupling {error:.3f}, chi-squared {found.chi2:.2f}")
    print(f"correlation with the truth: least {min(corr):.4f}, at 4 runs {corr[-1]:.4f} (last frame {still[-1]:.2f})")
    print(f"phases at 4 runs: RMS error {np.sqrt((off**2).mean()):.3f} rad")
    for seed in (101, 102, 103):
        other = SYSTEM.start(np.random.default_rng(seed))
        end = SCATTERING.intensity(SYSTEM.trajectory(other, times_s)[-1])
        print(f"another start ({seed}), at 4 runs: {likeness(found.patterns(times_s, other)[-1], end):.4f}")

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
    axes[0].fill_between(r, values[2] - 2 * sd[2], values[2] + 2 * sd[2], alpha=0.3, label="its error, 2 sd")
    axes[0].plot(r, values[2], label="fit")
    axes[0].plot(r, true, "k--", label="truth")
    axes[0].set(xlabel="distance (um)", title="phase coupling (rad/s): above 0 synchronises")
    axes[0].legend()
    axes[1].plot(times_s, corr, label="forecast")
    axes[1].plot(times_s, still, label="last frame, unchanged")
    axes[1].axvline(times_s[N_FRAMES - 1], color="k", lw=0.8)
    axes[1].text(times_s[N_FRAMES], 0.05, "end of the run", transform=axes[1].get_xaxis_transform())
    axes[1].set(xlabel="time (s)", title="correlation with the true pattern", ylim=(0, 1.03))
    axes[1].legend(loc="center right")
    for axis, phases, name in ((axes[2], states, "true"), (axes[3], found.states(times_s), "forecast")):
        image = axis.imshow(
            (phases[-1, :, 2] % (2 * np.pi)).reshape(SYSTEM.size, -1), vmin=0, vmax=6.283, cmap="twilight"
        )
        axis.set(title=f"{name} phases at {times_s[-1]:.0f} s", xticks=[], yticks=[])
    figure.colorbar(image, ax=axes[3], label="rad")
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="kuramoto_lattice.png", help="figure (default: %(default)s)")
    main(parser.parse_args().out)
