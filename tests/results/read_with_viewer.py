"""Run by an interpreter that has pyXpcsViewer: open an APS result file with its own reader and tell what it found."""

import json
import sys

import numpy as np
from pyxpcsviewer.core.file_io.ftype_utils import get_ftype
from pyxpcsviewer.core.xpcs_file import XpcsFile


def main(path: str) -> None:
    opened = XpcsFile(path)
    q, delay_s, g2, g2_err, labels = opened.get_g2_data()
    c2 = opened.get_twotime_c2(selection=1, correct_diag=False, max_size=-1)
    q_saxs, intensity = opened.get_saxs1d_data()[:2]
    fit = opened.fit_g2(bounds=[[1e-3, 1e-3, 0.5, 0.8], [1, 1e3, 1.5, 1.2]], fit_flag=[True] * 4)
    found = {
        "type": get_ftype(path),
        "analysis": list(opened.atype),
        "q": np.ravel(q).tolist(),
        "delay_s": np.ravel(delay_s).tolist(),
        "g2": g2.tolist(),
        "g2_err": g2_err.tolist(),
        "labels": labels,
        "two_time_labels": opened.get_twotime_qbin_labels(),
        "c2": np.nan_to_num(c2["c2_mat"], nan=-1).tolist(),
        "row_s": float(c2["acquire_period"]),
        "saxs_q": q_saxs.tolist(),
        "saxs": np.ravel(intensity).tolist(),
        "image": list(opened.saxs_2d.shape),
        "intensity": np.ravel(opened.Int_t[1]).tolist(),
        "relaxation_s": np.ravel(fit["fit_val"][:, 0, 1]).tolist(),
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
