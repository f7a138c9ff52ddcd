"""Where an analysis reads its run and leaves its result, and how it tells people."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import httpx
import numpy as np

from beamline_ml.documents import find_run
from beamline_ml.errors import BeamlineMLError, RunNotFound, ServiceError
from beamline_ml.results import Analysis, assemble, drafted, find_complete, publish_failure
from beamline_ml.results.content import ResultContent
from beamline_ml.results.headline import value_with_error
from beamline_ml.results.identity import result_id
from beamline_ml.results.publish import Draft
from beamline_ml.results.rings import ring_rows
from beamline_ml.service.analysis import (
    Correlated,
    Explained,
    Subject,
    analysis_settings,
    identity_settings,
    published_rows,
)
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.settings import AnalysisSettings, Settings, load_settings

_KERNEL_POINTS = 120
_NOT_IN_A_KEY = re.compile(r"[^a-z0-9-]+")
_NOT_YET = Explained(None, None, None)
_VERSIONED = ("beamline-ml", "torch", "torchdiffeq", "numpy", "tiled", "prefect")


@dataclass(frozen=True)
class Publication:
    """Catalogue of runs, container of results, and the settings of one analysis."""

    settings: Settings
    analysis: AnalysisSettings
    asked: Mapping[str, Any]
    """What was asked for beside the profile's settings."""
    flow_run_id: str
    catalogue: Catalogue

    @property
    def raw(self) -> Any:
        """Container of the runs."""
        return self.catalogue.raw

    @property
    def results(self) -> Any:
        """Container of the results."""
        return self.catalogue.results

    @classmethod
    def open(cls, asked: Mapping[str, Any], flow_run_id: str) -> Publication:
        """Connect to tiled with the settings of profile, environment and parameters.

        Raises
        ------
        SettingsError
            When a parameter makes no sense.
        ServiceError
            When tiled does not answer.
        """
        settings = load_settings()
        analysis = analysis_settings(settings, asked)
        given = {name: value for name, value in asked.items() if value is not None}
        try:
            catalogue = Catalogue(settings)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"tiled at {settings.tiled.uri} does not answer ({error!r}).", "Start it; beamline-ml doctor says more."
            ) from error
        return cls(settings, analysis, given, flow_run_id, catalogue)

    def close(self) -> None:
        """Close the connection to tiled."""
        self.catalogue.close()

    def find(self, subject: Subject) -> Any | None:
        """The complete result of this run under these settings, if there is one."""
        return find_complete(self.results, result_id(subject.description.uid, identity_settings(self.analysis)))

    def drafted(self, subject: Subject, correlated: Correlated) -> AbstractContextManager[Draft]:
        """Begin to publish the correlations, before the dynamics are fitted."""
        return drafted(self.results, self.content(subject, correlated, _NOT_YET, {}))

    def content(
        self, subject: Subject, correlated: Correlated, explained: Explained, timings_s: Mapping[str, float]
    ) -> ResultContent:
        """Everything that is published."""
        rows, factor = published_rows(correlated)
        fit = explained.fit
        analysis = Analysis(
            description=subject.description,
            settings=identity_settings(self.analysis),
            two_time=rows,
            time_binning=factor,
            g2=correlated.g2,
            relaxation=correlated.relaxation,
            power_law=correlated.power_law,
            dynamics=fit,
            kernel_r_um=None if fit is None else np.linspace(0.0, fit.cutoff_um, _KERNEL_POINTS),
            forecast=explained.forecast,
            refusal=explained.refusal,
            average_frame=correlated.average_frame,
            roi_map=correlated.qmap.labels,
            warnings=(*subject.description.warnings, *correlated.warnings, *explained.warnings),
            asked=self.asked,
            provenance=self._provenance(correlated),
            timings_s=timings_s,
        )
        return assemble(analysis)

    def _provenance(self, correlated: Correlated) -> dict[str, Any]:
        return {
            "flow_run_id": self.flow_run_id,
            "frames_read_by": correlated.source,
            "machine": platform.node(),
            "versions": {name: version(name) for name in _VERSIONED},
        }

    def record_failure(self, run_uid: str, refusal: BeamlineMLError) -> None:
        """Leave the reason where people look for the result; a run that does not exist leaves none."""
        try:
            run = find_run(self.raw, run_uid)
        except RunNotFound:
            return
        publish_failure(self.results, run.metadata["start"], refusal, self.asked, self.flow_run_id)

    def markdown(self, result: Any) -> str:
        """Prefect artifact: the headline in words, the table, and where the rest is."""
        lines = [
            f"# {result.sample_name}, scan {result.scan_id}",
            *result.metadata["summary"],
            "| q (1/µm) | relaxation time (s) | contrast | stretching |\n|---|---|---|---|\n"
            + "\n".join(_rows(result)),
            *(f"*Note: {warning}*" for warning in result.warnings),
            f"[Result {result.key} in tiled]({self.settings.tiled.uri}/ui/browse/{self.settings.tiled.results}/"
            f"{result.key})",
        ]
        return "\n\n".join(lines)

    def artifact_key(self, subject: Subject) -> str:
        """Key of the artifact, in the characters that Prefect allows."""
        name = f"{subject.description.scan_id}-{subject.description.sample_name}-{subject.description.uid[:8]}"
        return _NOT_IN_A_KEY.sub("-", name.lower()).strip("-")


def _rows(result: Any) -> list[str]:
    return [
        f"| {row.q_inv_um:.3g} | none: {row.refused} | | |"
        if row.refused
        else f"| {row.q_inv_um:.3g} | {value_with_error(row.relaxation_time_s, row.relaxation_time_s_err)} | "
        f"{value_with_error(row.contrast, row.contrast_err)} | {value_with_error(row.stretching, row.stretching_err)} |"
        for row in ring_rows(result.relaxation)
    ]
