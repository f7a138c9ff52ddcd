"""Samples in tiled, their plans, and the results: what flow ``plan-measurements`` does, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beamline_ml.acquisition.containers import open_container
from beamline_ml.errors import GuidanceError, StructureRefused
from beamline_ml.guidance import RunSoFar
from beamline_ml.phonons import PhononDos, check_structure, load_predictor
from beamline_ml.results import Results, publish_result
from beamline_ml.results.client import XPCSFit
from beamline_ml.results.publish import find_complete
from beamline_ml.service.phonon_samples import SAMPLES, CatalogueSample
from beamline_ml.service.plan_conditions import conditions_of, goal_of, run_of
from beamline_ml.service.plan_content import CONTAINER, markdown, plan_content
from beamline_ml.service.plan_sample import SamplePlan, measure_first, sample_plan
from beamline_ml.service.sample_catalogue import SampleCatalogue
from beamline_ml.settings import Settings

_NO_STRUCTURE = "The catalogue has no crystal structure of this sample (cif or structure)."
_NO_RUN = "No run of this sample has been fitted yet."


@dataclass(frozen=True, slots=True)
class Plans:
    """What came of the samples."""

    made: tuple[SamplePlan, ...]
    refused: dict[str, str]
    """Reason by name of the sample: what its entry says makes no sense."""
    unchanged: tuple[SamplePlan, ...]
    """Published before, from the same input."""

    def markdown(self) -> str:
        """Text of the artifact."""
        told = markdown(self.made, len(self.unchanged), measure_first((*self.made, *self.unchanged)))
        return "\n\n".join([told, *(f"**Refused**: {name}: {reason}" for name, reason in self.refused.items())])


class PlanCatalogue(SampleCatalogue):
    """Runs, samples, fits and plans of one tiled server."""

    container = CONTAINER

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings.guidance
        self._fits = Results(open_container(self._root, settings.tiled.results))

    def samples(self, names: Sequence[str] | None = None) -> list[CatalogueSample]:
        """Every sample that runs or ``samples/`` name, each once by name; only those named, when names are given.

        What later entries say of a sample goes over what earlier ones said, value by value.
        """
        found: dict[str, CatalogueSample] = {}
        for uid, run in self._raw.items():
            _gather(found, run.metadata.get("start", {}).get("sample"), (uid,))
        container = self._root.get(SAMPLES)
        for key, node in container.items() if container is not None else ():
            _gather(found, {"name": key, **dict(node.metadata)}, ())
        return [sample for name, sample in sorted(found.items()) if names is None or name in names]

    def plan(self, samples: Sequence[CatalogueSample]) -> Plans:
        """Plans of the samples; those that are published already are told apart."""
        predictor = load_predictor()
        made: list[SamplePlan] = []
        unchanged: list[SamplePlan] = []
        refused: dict[str, str] = {}
        for sample in samples:
            try:
                planned = self._plan(sample, predictor)
            except GuidanceError as refusal:
                refused[sample.name] = str(refusal)
                continue
            there = find_complete(self.results, planned.identity)
            (made if there is None else unchanged).append(planned)
        return Plans(tuple(made), refused, tuple(unchanged))

    def publish(self, plans: Plans, flow_run_id: str | None = None) -> list[str]:
        """Write every new plan into ``results/plans`` and return the keys."""
        contents = (plan_content(planned, flow_run_id) for planned in plans.made)
        return [str(publish_result(self.results, content).item["id"]) for content in contents]

    def _plan(self, sample: CatalogueSample, predictor: Any) -> SamplePlan:
        unknown: dict[str, str] = {}
        dos, density = _density_of_states(sample, predictor, unknown)
        fit = self._latest_fit(sample.name)
        run = _run(fit, unknown)
        conditions = conditions_of(
            self._settings,
            sample.entry,
            None if fit is None else fit.metadata.get("experiment"),
            None if fit is None else float(fit.q_inv_angstrom.max()),
            density,
        )
        return sample_plan(
            sample.name,
            conditions,
            goal_of(self._settings),
            dos,
            run,
            unknown,
            run_uids=sample.run_uids,
            fit_key=None if fit is None else fit.key,
            structure_id=sample.structure_id if sample.has_structure else None,
        )

    def _latest_fit(self, sample_name: str) -> XPCSFit | None:
        found = self._fits.search(sample=sample_name)
        return found[0] if found else None


def _gather(found: dict[str, CatalogueSample], entry: Any, run_uids: tuple[str, ...]) -> None:
    """Add what one document says of a sample to what is known of it."""
    if not isinstance(entry, Mapping) or not entry.get("name"):
        return
    name = str(entry["name"])
    known = found.get(name)
    merged = {**(known.entry if known else {}), **dict(entry)}
    found[name] = CatalogueSample(name, merged, tuple(sorted({*(known.run_uids if known else ()), *run_uids})))


def _density_of_states(
    sample: CatalogueSample, predictor: Any, unknown: dict[str, str]
) -> tuple[PhononDos | None, float | None]:
    """The prediction and the number of atoms per cubic angstrom, or None and why."""
    if not sample.has_structure:
        unknown["structure"] = _NO_STRUCTURE
        return None, None
    try:
        atoms = sample.atoms()
        check_structure(atoms, predictor.space.known_elements, name=sample.name)
    except StructureRefused as refusal:
        unknown["structure"] = str(refusal)
        return None, None
    return predictor(atoms), float(len(atoms) / atoms.get_volume())


def _run(fit: XPCSFit | None, unknown: dict[str, str]) -> RunSoFar | None:
    if fit is None:
        unknown["run"] = _NO_RUN
        return None
    try:
        return run_of(fit)
    except GuidanceError as refusal:
        unknown["run"] = str(refusal)
        return None
