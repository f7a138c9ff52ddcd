"""Asking for results loads neither torch nor prefect nor a plotting library."""

import subprocess
import sys

HEAVY = ("torch", "prefect", "pandas", "matplotlib", "h5py", "bluesky", "dask", "pyarrow", "xarray")


def test_importing_results_loads_nothing_heavy():
    code = (
        "import sys; import beamline_ml.results; from beamline_ml.results import open_results, XPCSFit;"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
