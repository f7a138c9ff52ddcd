"""Q-maps and accumulators as named arrays, so that a checkpoint needs nothing but numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.qmap import QMap


def qmap_arrays(qmap: QMap) -> dict[str, NDArray[Any]]:
    """Everything a q-map was made from."""
    arrays: dict[str, NDArray[Any]] = {
        "labels": qmap.labels,
        "static_labels": qmap.static_labels,
        "mask": qmap.mask,
        "q_inv_angstrom": qmap.q_inv_angstrom,
        "n_bad_pixels": np.array(qmap.n_bad_pixels),
    }
    return arrays | ({} if qmap.flatfield is None else {"flatfield": qmap.flatfield})


def qmap_of(arrays: Mapping[str, NDArray[Any]]) -> QMap:
    """The q-map that :func:`qmap_arrays` took apart."""
    labels, static, mask, q = (arrays[name] for name in ("labels", "static_labels", "mask", "q_inv_angstrom"))
    qmap = QMap(labels, static, mask, arrays.get("flatfield"), q)
    qmap.n_bad_pixels = int(arrays["n_bad_pixels"])
    return qmap


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The state of a :class:`TwoTimeAccumulator` from ``to_arrays(since)``, taken again and again, in order."""
    by_frame = {
        name: np.concatenate([part[name] for part in parts]) for name in ("rows", "group_sums", "present", "saturated")
    }
    return dict(parts[-1]) | by_frame | {"gram": _joined_gram([part["gram"] for part in parts])}


def _joined_gram(strips: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Strips of rows, each as wide as the rows so far, below each other; the upper triangle stays empty."""
    # The last one's sums may have outgrown the type of the earlier ones.
    gram = np.zeros((strips[-1].shape[0], strips[-1].shape[2], strips[-1].shape[2]), strips[-1].dtype)
    last = 0
    for strip in strips:
        first, last = last, last + strip.shape[1]
        gram[:, first:last, : strip.shape[2]] = strip
    return gram
