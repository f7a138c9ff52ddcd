"""The built wheel carries all that a machine without a checkout needs."""

import subprocess
import zipfile


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
