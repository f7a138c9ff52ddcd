"""Flow ``phonon-dos``: a phonon density of states with error bars for every catalogued sample that has a structure.

What is published already for the same structure and the same weights is left alone. A structure that cannot be read or
trusted is refused by name, and the others are done.
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
    """Samples with a structure, from the runs' start documents and from ``samples/``."""
    return catalogue.samples(names)


@task(cache_policy=NO_CACHE)
def predict(catalogue: Any, samples: Any, second_opinion: bool) -> Any:
    """Densities of states of what is new or changed; refusals by name."""
    return catalogue.predict(samples, second_opinion)


@task(cache_policy=NO_CACHE)
def publish(catalogue: Any, predictions: Any) -> list[str]:
    """Write the results, each visible only when it is complete."""
    return list(catalogue.publish(predictions, str(flow_run.get_id() or "")))


@flow(name="phonon-dos", validate_parameters=True)
def phonon_dos(samples: list[str] | None = None, second_opinion: bool = False) -> dict[str, Any]:
    """Predict and publish; return the keys of new results, how many were there already, and refusals by name.

    Parameters
    ----------
    samples
        Names of the samples to predict; None takes all that the catalogue knows.
    second_opinion
        Ask the teacher as well (extra ``teacher``): up to a minute a sample. Where it has none, the result says why.
    """
    from beamline_ml.service.phonon_catalogue import PhononCatalogue

    with closing(PhononCatalogue.open()) as catalogue:
        found = look_up(catalogue, samples)
        predictions: Any = predict(catalogue, found, second_opinion)
        keys = publish(catalogue, predictions)
    for reason in predictions.refused.values():
        get_run_logger().warning("%s", reason)
    create_markdown_artifact(predictions.markdown(), key="phonon-dos", description="Phonon densities of states")
    return {"published": keys, "unchanged": len(predictions.unchanged), "refused": predictions.refused}
