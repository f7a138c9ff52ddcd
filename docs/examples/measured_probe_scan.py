"""A measured scan: where the beam went, from the patterns alone, held against what the stage told.

The object and the beam's modes are those of a ptychographic reconstruction; of the beam's path only the first position
is given. The law du/dt = F(u) of its motion is fitted on the first frames and followed through the later ones. The scan
is public (N. Andrejevic et al., npj Comput Mater 10, 225 (2024): https://zenodo.org/records/10204976) and not in this
repository: give the folder that it was unpacked to.

    python docs/examples/measured_probe_scan.py FOLDER [--frames 80] [--out FILE.png]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from beamline_ml.dynamics import MappedScattering, RigidObservations, fit
from beamline_ml.frames import load_ptychographic_scan

FRAME_S = 1.0
"""The record does not say how long a frame took; speeds come out per frame."""


def main(folder, n_frames, out, **reading):
    """Read, fit, follow, draw."""
    scan = load_ptychographic_scan(folder, **reading)
    told = scan.positions_um[: 2 * n_frames]
    times_s = FRAME_S * np.arange(len(told))
    scattering = MappedScattering(scan.object_map, scan.modes, scan.pixel_um)

    seen = RigidObservations(scan.counts(0, n_frames), times_s[:n_frames], scattering, told[0])
    found = fit(seen, time_budget_s=3600.0)

    ahead = found.positions(times_s)
    off = np.hypot(*(ahead - told).T)
    print(f"chi-squared {found.chi2:.2f}; start moved by {np.hypot(*(found.start_um - told[0])):.4f} um")
    for name, part in (("seen", slice(0, n_frames)), ("ahead", slice(n_frames, None))):
        error, extent = off[part], np.ptp(told[part], axis=0).max()
        print(f"{name}: median error {np.median(error):.4f} um, largest {error.max():.4f} um (extent {extent:.2f} um)")

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    axes[0].plot(told[:, 1], told[:, 0], "k.", ms=4, label="told by the stage")
    axes[0].plot(ahead[:n_frames, 1], ahead[:n_frames, 0], label="fit")
    axes[0].plot(ahead[n_frames:, 1], ahead[n_frames:, 0], label="forecast")
    axes[0].set(xlabel="column (um)", ylabel="row (um)", aspect="equal", title="beam on the object")
    axes[0].legend()
    axes[1].semilogy(off)
    axes[1].axvline(n_frames - 1, color="k", lw=0.8)
    axes[1].set(xlabel="frame (the line: last one fitted)", ylabel="error of the position (um)")
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the record was unpacked: it holds raw and data")
    parser.add_argument("--frames", type=int, default=80, help="frames to fit (default: %(default)s)")
    parser.add_argument("--out", default="measured_probe_scan.png", help="figure (default: %(default)s)")
    given = parser.parse_args()
    main(given.folder, given.frames, given.out)
