"""The built wheel carries all that a machine without a checkout needs."""

import json
import os
import subprocess
import zipfile

import pytest


def test_wheel_carries_flows_profiles_and_deploy_files(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "beamline_ml/shipped/flows/xpcs_fit.py",
        "beamline_ml/shipped/profiles/sim_xpcs/beamline.toml",
        "beamline_ml/shipped/profiles/template/beamline.toml",
        "beamline_ml/shipped/deploy/prefect.yaml",
        "beamline_ml/shipped/constraints.txt",
        "beamline_ml/py.typed",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "flows/")) or name.endswith(".pyc")]


def test_package_comes_from_the_wheel(wheel_environment, outside):
    script = "import beamline_ml, beamline_ml.settings as s; print(beamline_ml.__file__); print(s.shipped_root())"
    ran = subprocess.run(
        [wheel_environment / "bin" / "python", "-c", script], check=True, capture_output=True, text=True
    )
    package, shipped = ran.stdout.splitlines()
    assert str(wheel_environment) in package
    assert shipped.endswith("beamline_ml/shipped")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_demo_from_the_wheel_on_real_frames(wheel_environment, outside, test_data):
    """The main job on a machine without a checkout, on a film of colloids whose diffusion tracking knows."""
    ran = subprocess.run(
        [
            wheel_environment / "bin" / "beamline-ml",
            "demo",
            "--movie",
            test_data / "colloids" / "colloids_bulk_water_224x160.npz",
            "--json",
            outside / "report.json",
        ],
        env={**os.environ, "BEAMLINE_ML_ANALYSIS__FIT_BUDGET_S": "12"},
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    report = json.loads((outside / "report.json").read_text())
    tracked_um2_per_s = 0.40
    found = report["diffusion_coefficient_um2_per_s"]
    assert abs(found / tracked_um2_per_s - 1) < 0.35
    assert 0 < report["diffusion_coefficient_um2_per_s_err"] < 0.35 * found
    in_range = [ring for ring in report["rings"] if 1.3 < ring["q_inv_um"] < 2.2]
    for ring in in_range:
        assert abs(1 / (ring["relaxation_time_s"] * ring["q_inv_um"] ** 2) / tracked_um2_per_s - 1) < 0.35
    model, error = report["model_diffusion_um2_per_s"], report["model_diffusion_um2_per_s_err"]
    assert abs(model - tracked_um2_per_s) < max(3 * error, 0.35 * tracked_um2_per_s)
    assert (outside / "report.json").stat().st_size > 500
