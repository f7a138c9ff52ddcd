"""The flow over a catalogue: plans from structures and fitted runs, refusals and gaps by name, nothing done twice."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from flows.plan_measurements import plan_measurements
from tests.flows.test_phonon_dos import cif, described

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def plans(beamline: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """By sample, the plans that the flow has published so far."""
    told = {"FLUX_PHOTONS_PER_S": "1e11", "BEAM_WIDTH_UM": "10", "BEAM_HEIGHT_UM": "10", "LONGEST_RUN_S": "60"}
    for name, value in told.items():
        monkeypatch.setenv(f"BEAMLINE_ML_GUIDANCE__{name}", value)
    monkeypatch.setenv("BEAMLINE_ML_GUIDANCE__TEMPERATURE_RANGE_K", "[10, 400]")
    return lambda: {node.metadata["sample"]["name"]: node for node in beamline.container["plans"].values()}


@pytest.mark.slow
def test_plans_of_crystals_and_runs(
    record_run: Any, take_burst: Any, tiled_root: Any, plans: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from beamline_ml.results.plan_client import MeasurementPlan
    from flows.xpcs_fit import xpcs_fit

    salt = {"name": "plan halite", "cif": cif(bulk("NaCl", "rocksalt", a=5.64))}
    told = {"thickness_um": 50.0, "sink_radius_um": 1000.0, "attenuation_length_um": 100.0, "dose_budget_mgy": 100.0,
            "photon_energy_kev": 8.0}  # fmt: skip
    record_run(None, sample=salt | told)
    record_run(None, sample={"name": "plan cracked", "structure": described(bulk("MgO", "rocksalt", a=4.21)),
                             "thickness_um": "thin"})  # fmt: skip
    burst = take_burst(sample={"name": "plan colloid"})
    xpcs_fit(burst.metadata["start"]["uid"])

    names = ["plan halite", "plan cracked", "plan colloid"]
    said = plan_measurements(samples=names)
    assert len(said["published"]) == 2
    assert said["refused"] == {
        "plan cracked": "The sample's thickness_um is 'thin'. Write a number in the unit of its name."
    }
    found = plans()
    assert [spec.name for spec in found["plan halite"].specs] == ["MeasurementPlan"]
    _check_halite(_held(MeasurementPlan, found["plan halite"]))
    _check_colloid(_held(MeasurementPlan, found["plan colloid"]))

    assert plan_measurements(samples=names)["published"] == []
    record_run(None, sample=salt | told | {"thickness_um": 20.0})
    again = plan_measurements(samples=["plan halite"])
    assert len(again["published"]) == 1

    _check_command_line(capsys)


def _held(kind: Any, node: Any) -> Any:
    """As the class that an installed package registers for the spec."""
    return kind(node.context, item=node.item, structure_clients=node.structure_clients)


def _check_halite(halite: Any) -> None:
    lines = halite.plan.set_index("quantity")
    assert halite.metadata["status"] == "complete"
    assert {
        "temperature_point_3",
        "steady_heating",
        "attenuator_transmission",
        "thermal_time",
        "phonon_information",
    } <= set(lines.index)
    assert (lines["lower"] <= lines["value"] * (1 + 1e-9)).all()
    assert lines.loc["temperature_point_3", "value"] == pytest.approx(65.0, abs=10.0)
    missing = halite.missing.set_index("quantity")
    assert missing.loc["pulse_heating", "needs"] == "pulse_rate_hz"
    assert "No run" in missing.loc["advice", "reason"]
    assert halite.plot().axes[0].get_xlabel() == "temperature (K)"


def _check_colloid(colloid: Any) -> None:
    advice = colloid.advice
    assert advice["action"] in ("stop", "go on")
    assert np.isfinite(advice["relative_error_now"])
    missing = colloid.missing.set_index("quantity")
    assert "no crystal structure" in missing.loc["density_of_states", "reason"]
    lines = colloid.plan.set_index("quantity")
    assert 0.0 < lines.loc["sufficient_transmission", "value"] <= 1.0
    errors = np.nanmedian(colloid["relative_error"].read(), axis=0)
    assert (np.diff(errors) < 0).all()
    assert colloid.plot().axes[0].get_xlabel() == "length of the run (s)"


def _check_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from beamline_ml.cli import app
    from beamline_ml.errors import GuidanceError

    run = CliRunner().invoke(app, ["plan", "plan halite", "--json", "--no-publish"], catch_exceptions=False)
    told = json.loads(run.stdout)
    assert [sample["sample"] for sample in told] == ["plan halite"]
    assert told[0]["lines"][0]["reason"].endswith(".")
    table = CliRunner().invoke(app, ["plan", "plan colloid", "--no-publish"], catch_exceptions=False)
    assert "go_on_for" in table.stdout
    with pytest.raises(GuidanceError, match="does not know nobody"):
        CliRunner().invoke(app, ["plan", "nobody"], catch_exceptions=False)
