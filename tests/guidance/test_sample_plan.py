"""What is said of one sample when structure, run or both are known, and the order among several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.guidance import Conditions, Goal
from beamline_ml.service.plan_content import answer, markdown, picture_of, plan_content
from beamline_ml.service.plan_sample import measure_first, sample_plan
from tests.guidance.campaign import Sample, movie, run_of
from tests.guidance.crystals import debye_solid

NOTHING = {"structure": "No structure.", "run": "No run."}


def test_nothing_known_is_a_plan_that_says_so() -> None:
    planned = sample_plan("ghost", Conditions(), Goal(), None, None, NOTHING)
    assert planned.plan.lines == ()
    assert [line.reason for line in planned.plan.missing] == ["No structure.", "No run."]
    content = plan_content(planned, None)
    assert [table.name for table in content.tables] == ["missing"]
    assert content.arrays == ()
    assert "No structure." in markdown([planned], 0)


def test_run_alone_gives_advice_and_its_picture() -> None:
    planned = sample_plan("colloid", Conditions(), Goal(), None, run_of(movie(Sample(20.0, 0.3), 200, 0)), NOTHING)
    assert planned.plan.line("go_on_for") is not None
    assert planned.plan.line("sufficient_transmission") is not None
    picture = picture_of(planned)
    assert picture.temperature_k is None
    assert picture.relative_error is not None
    assert picture.go_on_until_s == pytest.approx(10.0 + answer(planned)["advice"]["go_on_s"])


def test_conditions_that_contradict_each_other_take_their_lines_only() -> None:
    inside = Conditions(
        number_density_per_angstrom3=0.05, thickness_um=1.0, sink_radius_um=1.0, photon_energy_kev=8.0,
        flux_photons_per_s=1e10, beam_width_um=10.0, beam_height_um=10.0,
    )  # fmt: skip
    run = run_of(movie(Sample(20.0, 0.3), 200, 0))
    planned = sample_plan("odd", inside, Goal(), debye_solid(), run, NOTHING)
    refused = [line.quantity for line in planned.plan.missing if "within the beam" in line.reason]
    assert refused == ["steady_heating", "attenuator_transmission"]
    assert planned.plan.line("thermal_time") is not None
    assert planned.plan.line("go_on_for") is not None


def test_identity_changes_with_what_it_rests_on() -> None:
    first = sample_plan("halite", Conditions(), Goal(), debye_solid(), None, NOTHING)
    same = sample_plan("halite", Conditions(), Goal(), debye_solid(), None, NOTHING)
    warmer = sample_plan("halite", Conditions(temperature_k=310.0), Goal(), debye_solid(), None, NOTHING)
    stricter = sample_plan("halite", Conditions(), Goal(0.01), debye_solid(), None, NOTHING)
    assert first.identity == same.identity
    assert len({first.identity, warmer.identity, stricter.identity}) == 3


def test_samples_that_the_members_disagree_on_come_first() -> None:
    rng = np.random.default_rng(0)
    plans = [
        sample_plan(
            name,
            Conditions(measurement_hours=hours),
            Goal(),
            replace(debye_solid(), member_points=rng.normal(0.5, spread, (3, 51))),
            None,
            NOTHING,
        )
        for name, spread, hours in (("sure", 0.01, 1.0), ("open", 0.3, 1.0), ("slow", 0.3, 50.0))
    ]
    order = [name for name, _ in measure_first(plans)]
    assert order[0] == "open"
    assert measure_first([]) == []
    assert "Whose phonons to measure first" in markdown(plans, 0, measure_first(plans))
