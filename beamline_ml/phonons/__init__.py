"""Phonon density of states of a crystal with error bars, its thermodynamics, and the training of the network behind it.

Pure: structures and arrays in, records out; the only files read are the weights that the package ships. Importing
this package does not import torch; ``load_predictor`` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from beamline_ml.phonons.dos import NearestMaterial, PhononDos
from beamline_ml.phonons.structures import check_structure, structure_from_text

if TYPE_CHECKING:
    from beamline_ml.phonons.predictor import Predictor

__all__ = ["NearestMaterial", "PhononDos", "check_structure", "load_predictor", "structure_from_text"]


def load_predictor(weights: Path | None = None, double_precision: bool = False) -> Predictor:
    """The predictor ``predictor(atoms) -> PhononDos`` with the shipped weights, or those of another training.

    Parameters
    ----------
    weights
        A file written by ``beamline-ml phonons train``; by default the one in the package.
    double_precision
        Run the network in float64, for checks.
    """
    # torch and e3nn take seconds to import: whoever only wants the records does not pay for them.
    from beamline_ml.phonons import predictor

    return predictor.load_predictor(weights, double_precision)
