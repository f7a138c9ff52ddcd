"""Swarmalators: particles that swarm and synchronise, force and phase coupling from speckle patterns alone.

100 particles attract each other, the more the more their phases agree, and pull each other's phases together
(O'Keeffe, Hong and Strogatz, Nat. Commun. 8, 1504 (2017), J = K = 0.5; ``Swarmalators``). A particle scatters
1 + 0.5 cos(phase). The start is known, positions and phases; three laws are fitted from zero: the force, its part that
goes with the cosine of the phase difference, and the phase coupling. Then the patterns go on to four times the run, and
the laws are asked about three starts that they have never seen.

    python docs/examples/swarmalators.py [--out FILE.png]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from beamline_ml.dynamics import DynamicsModel, PatternScattering, PhaseObservations, PhaseScattering, fit
from beamline_ml.dynamics.systems.self_organising import disc_start
from beamline_ml.dynamics.systems.swarmalators import Swarmalators

N, N_FRAMES, FRAME_S, PHOTONS = 100, 40, 0.1, 100.0
SCATTERING = PhaseScattering(PatternScattering(64, 0.8, probe_um=2.0), charge=1.0, phase_contrast=0.5)
NAMES = ("force (um/s)", "force x cos(phase difference) (um/s)", "phase coupling (rad/s)")


def likeness(a, b):
    """Pearson correlation of two patterns outside the beam stop."""
    return np.corrcoef(a[SCATTERING.used], b[SCATTERING.used])[0, 1]


def random_start(rng):
    """Particles on a disc of 1 um, phases anywhere."""
    return np.column_stack([disc_start(N, 1.0, rng), rng.uniform(0, 2 * np.pi, N)])


def main(out):
    """Simulate, scatter, fit, extrapolate, draw."""
    rng = np.random.default_rng(0)
    system = Swarmalators(j=0.5, k=0.5, n_particles=N)
    times_s, start = FRAME_S * np.arange(4 * N_FRAMES + 1), random_start(rng)
    truth = np.stack([SCATTERING.intensity(state) for state in system.trajectory(start, times_s)])
    counts = rng.poisson(PHOTONS * truth[:N_FRAMES] / truth[:N_FRAMES].max())

    seen = PhaseObservations(counts, times_s[:N_FRAMES], SCATTERING, start)
    found = fit(seen, DynamicsModel(n_coefficients=24, cutoff_um=2.6), time_budget_s=600.0)

    r = np.linspace(0.1, 2.0, 60)
    (values, sd), true = found.kernel(r), system.kernel(r)
    ahead = found.patterns(times_s)
    corr = [likeness(a, b) for a, b in zip(ahead, truth, strict=True)]
    still = [likeness(truth[N_FRAMES - 1], b) for b in truth]
    for k, name in enumerate(NAMES):
        error = np.sqrt(((values[k] - true[k]) ** 2 * r).sum() / (true[k] ** 2 * r).sum())
        print(f"error of the {name:38s} {error:.3f}")
    print(f"chi-squared {found.chi2:.2f}")
    print(f"correlation with the truth: least {min(corr):.4f}, at 4 runs {corr[-1]:.4f} (last frame {still[-1]:.2f})")
    for seed in (101, 102, 103):
        other = random_start(np.random.default_rng(seed))
        end = SCATTERING.intensity(system.trajectory(other, times_s)[-1])
        print(f"another start ({seed}), at 4 runs: {likeness(found.patterns(times_s, other)[-1], end):.4f}")

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
    for k, axis in enumerate(axes[:3]):
        axis.fill_between(r, values[k] - 2 * sd[k], values[k] + 2 * sd[k], alpha=0.3, label="its error, 2 sd")
        axis.plot(r, values[k], label="fit")
        axis.plot(r, true[k], "k--", label="truth")
        axis.set(xlabel="distance (um)", title=NAMES[k])
    axes[0].legend()
    axes[3].plot(times_s, corr, label="forecast")
    axes[3].plot(times_s, still, label="last frame, unchanged")
    axes[3].axvline(times_s[N_FRAMES - 1], color="k", lw=0.8)
    axes[3].text(times_s[N_FRAMES], 0.05, "end of the run", transform=axes[3].get_xaxis_transform())
    axes[3].set(xlabel="time (s)", title="correlation with the true pattern", ylim=(0, 1.03))
    axes[3].legend(loc="center right")
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="swarmalators.png", help="figure (default: %(default)s)")
    main(parser.parse_args().out)
