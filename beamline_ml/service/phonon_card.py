"""The model card that lies beside the weights: what they were trained on, what they can do, what they cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.structures import MAX_ATOMS, MIN_CONTACT_ANGSTROM

_FIGURES = {
    "mse": "mean squared error, 51 points, true maximum 1",
    "mse_renormalised": "the same, predictions scaled to maximum 1",
    "mae": "mean absolute error, 51 points",
    "r2": "coefficient of determination, mean over materials",
    "transport_inv_cm": "Wasserstein distance in cm^-1",
    "mean_frequency_inv_cm": "error of the mean frequency in cm^-1",
    "heat_capacity_300k": "error of C_V(300 K) in J/(K mol of atoms)",
}

_TEXT = """# Phonon density of states: model card

Version {version}. {n_members} networks of {n_parameters} parameters, {size_mb:.2f} MB in half precision (safetensors).

## What it does
From a crystal structure: the harmonic phonon density of states as modes per energy window with 90 % bands,
site-projected densities, and what follows from them (heat capacity, entropy, Debye temperatures, mean-square
displacements). The architecture is an E(3)-equivariant network built on e3nn in which every atom distributes exactly
three modes over 72 windows.

## Data
Density-functional perturbation theory (PBEsol) for semiconductors: G. Petretto et al., *High-throughput
density-functional perturbation theory phonons for inorganic materials*, Sci. Data 5, 180065 (2018),
doi:10.1038/sdata.2018.65, with structures of the Materials Project. Trained on {n_train} materials (the published
training split, one of which is not in the redistributed files); {n_held} materials (the published validation split)
were held out for calibration and for the figures below, and served to choose the recipe among a handful. The
published test split was not used. `beamline-ml phonons fetch` gets the data and checks it; it is not part of this
package.

## Licence
The weights are distributed under the licence of beamline-ml (BSD 3-Clause). Cite Petretto et al. (2018) and the
Materials Project when you use them; the licence of the data set is that of its publisher.

## Training
`beamline-ml phonons train` (seeds {seeds}): {recipe}.

## Figures on the {n_held} held-out materials
| figure | value |
|---|---|
{figures}

## Limits
* Harmonic, bulk, fully ordered crystals of at most {max_atoms} atoms, made of elements in the training data; anything
  else, and contacts under {min_contact:g} angstrom (0.9 for bonds of hydrogen), is refused.
* Unstable (imaginary) modes are not assessed: on held-out materials the network could not tell which crystals have
  them.
* Site-projected densities are inferred: the data hold totals only. Bands of the displacements are calibrated on the
  mean over sites.
* Above 110 cm^-1 windows are 20 cm^-1 (2.5 meV) wide: nothing finer is known. Above 1010 cm^-1 they are wider still.
* Metals and magnets are outside the training data. No linewidths, no thermal conductivity, no temperature dependence
  of the modes.
* DFPT itself errs: frequencies by a few per cent.
"""


def model_card(about: Mapping[str, Any], materials: Sequence[Material], size_bytes: int) -> str:
    """Text of the card for weights described by ``about`` (see ``assembly.assemble``)."""
    figures = "\n".join(f"| {meaning} | {about['held_out_figures'][name]:.4g} |" for name, meaning in _FIGURES.items())
    recipe = ", ".join(f"{name} {value}" for name, value in about["recipe"].items() if name != "shape")
    return _TEXT.format(
        version=about["version"],
        n_members=len(about["seeds"]),
        n_parameters=f"{about['n_parameters']:,}",
        size_mb=size_bytes / 1e6,
        n_train=sum(not m.held_out for m in materials),
        n_held=sum(m.held_out for m in materials),
        seeds=", ".join(map(str, about["seeds"])),
        recipe=recipe,
        figures=figures,
        max_atoms=MAX_ATOMS,
        min_contact=MIN_CONTACT_ANGSTROM,
    )
