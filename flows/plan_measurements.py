"""Flow ``plan-measurements``: for every catalogued sample what to measure next, for how long, and why.

Plans rest on the sample's crystal structure (through its predicted phonon density of states), on its latest fitted run,
and on what profile and sample entry say of beam and sample. What is published already from the same input is left
alone; what cannot be said names what is missing.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run


@task(cache_policy=NO_CACHE)
def look_up(catalogue: Any, names: list[str] | None) -> Any:
    """Samples that runs and ``samples/`` name."""
    return catalogue.samples(names)


@task(cache_policy=NO_CACHE)
def plan(catalogue: Any, samples: Any) -> Any:
    """Plans of what is new or changed; refusals by name."""
    return catalogue.plan(samples)


@task(cache_policy=NO_CACHE)
def publish(catalogue: Any, plans: Any) -> list[str]:
    """Write the results, each visible only when it is complete."""
    return list(catalogue.publish(plans, str(flow_run.get_id() or "")))


@flow(name="plan-measurements", validate_parameters=True)
def plan_measurements(samples: list[str] | None = None) -> dict[str, Any]:
    """Plan and publish; return the keys of new results, how many were there already, and refusals by name.

    Parameters
    ----------
    samples
        Names of the samples to plan for; None takes all that the catalogue knows.
    """
    from beamline_ml.service.plan_catalogue import PlanCatalogue

    with closing(PlanCatalogue.open()) as catalogue:
        found = look_up(catalogue, samples)
        plans: Any = plan(catalogue, found)
        keys = publish(catalogue, plans)
    for name, reason in plans.refused.items():
        get_run_logger().warning("%s: %s", name, reason)
    create_markdown_artifact(plans.markdown(), key="measurement-plans", description="What to measure next, and why")
    return {"published": keys, "unchanged": len(plans.unchanged), "refused": plans.refused}
