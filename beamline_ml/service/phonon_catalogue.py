"""Samples in tiled, their predictions, and the results: what flow ``phonon-dos`` does, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ase import Atoms

from beamline_ml.errors import StructureRefused
from beamline_ml.phonons import PhononDos, check_structure, load_predictor
from beamline_ml.results import publish_result
from beamline_ml.service.phonon_content import CONTAINER, identity, markdown, phonon_content
from beamline_ml.service.phonon_samples import SAMPLES, CatalogueSample, catalogued_samples, readable
from beamline_ml.service.sample_catalogue import SampleCatalogue

if TYPE_CHECKING:
    from beamline_ml.phonons.predictor import Predictor
    from beamline_ml.service.phonon_teacher import SecondOpinions

_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Predictions:
    """What came of the samples."""

    made: tuple[tuple[CatalogueSample, PhononDos], ...]
    refused: dict[str, str]
    """Reason by name of the sample."""
    unchanged: tuple[CatalogueSample, ...]
    """Predicted before, from the same structure by the same weights."""

    def markdown(self) -> str:
        """Text of the artifact."""
        return markdown({sample.name: dos for sample, dos in self.made}, self.refused, len(self.unchanged))


class PhononCatalogue(SampleCatalogue):
    """Runs, samples and phonon results of one tiled server."""

    container = CONTAINER

    def samples(self, names: Sequence[str] | None = None) -> list[CatalogueSample]:
        """Samples with a structure; only those named, when names are given."""
        container = self._root.get(SAMPLES)
        found = catalogued_samples(self._raw, container)
        return [sample for sample in found if names is None or sample.name in names]

    def predict(self, samples: Sequence[CatalogueSample], second_opinion: bool = False) -> Predictions:
        """Densities of states of the samples that are new or changed."""
        predictor, opinions = load_predictor(), _second_opinions(second_opinion)
        version = opinions.model(predictor.version) if opinions else predictor.version
        there = {node.metadata.get("result_id"): node for node in self.results.values() if _complete(node)}
        unchanged = tuple(sample for sample in samples if identity(sample, version) in there)
        for sample in unchanged:
            _link_runs(there[identity(sample, version)], sample)
        known = {sample.structure_id for sample in unchanged}
        crystals, refused = readable(sample for sample in samples if sample.structure_id not in known)
        trusted = [(s, atoms) for s, atoms in crystals if _trusted(s, atoms, predictor.space.known_elements, refused)]
        return Predictions(tuple(_densities(predictor, trusted, opinions)), refused, unchanged)

    def publish(self, predictions: Predictions, flow_run_id: str | None = None) -> list[str]:
        """Write every prediction into ``results/phonons`` and return the keys."""
        # One after the other: each publication writes its arrays in parallel already, and SQLite has one writer.
        contents = (phonon_content(sample, dos, flow_run_id) for sample, dos in predictions.made)
        return [str(publish_result(self.results, content).item["id"]) for content in contents]


def _second_opinions(wanted: bool) -> SecondOpinions | None:
    if not wanted:
        return None
    from beamline_ml.service.phonon_teacher import SecondOpinions

    return SecondOpinions.open()


def _densities(
    predictor: Predictor, trusted: Sequence[tuple[CatalogueSample, Atoms]], opinions: SecondOpinions | None
) -> Iterator[tuple[CatalogueSample, PhononDos]]:
    """Many crystals in one pass of the network, then, where asked for, the teacher's opinion on each."""
    for start in range(0, len(trusted), _TOGETHER):
        batch = trusted[start : start + _TOGETHER]
        densities = predictor.many([atoms for _, atoms in batch])
        for (sample, atoms), dos in zip(batch, densities, strict=True):
            yield sample, opinions(atoms, dos) if opinions else dos


def _complete(node: Any) -> bool:
    return bool(node.metadata.get("status") == "complete")


def _link_runs(node: Any, sample: CatalogueSample) -> None:
    """A run made since then belongs to the result as well."""
    linked = {*node.metadata.get("run_uids", ()), *sample.run_uids}
    if linked != set(node.metadata.get("run_uids", ())):
        node.update_metadata({"run_uids": sorted(linked)}, drop_revision=True)


def _trusted(sample: CatalogueSample, atoms: Atoms, known: frozenset[int], refused: dict[str, str]) -> bool:
    try:
        check_structure(atoms, known, name=sample.name)
    except StructureRefused as refusal:
        refused[sample.name] = str(refusal)
        return False
    return True
