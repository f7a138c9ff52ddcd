"""The only reader of environment and files: one typed tree, profile TOML < environment < arguments.

A profile is a folder under ``profiles/`` with a ``beamline.toml``; ``BEAMLINE_ML_PROFILE`` names it, or a path to one.
Environment variables override single values with ``__`` between levels, for example
``BEAMLINE_ML_TILED__URI=http://tiled.site:8000``. ``beamline-ml up`` writes ``settings.toml`` into its state directory
with the ports and key it chose; ``BEAMLINE_ML_STATE_DIR`` (or the default) is where other processes find it.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from beamline_ml.errors import SettingsError


def shipped_root() -> Path:
    """Folder that holds ``flows``, ``profiles`` and ``deploy``: inside the wheel, else the checkout.

    Raises
    ------
    SettingsError
        When neither is there, which means a broken installation.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "shipped", package.parent):
        if (root / "flows" / "__init__.py").is_file():
            return root
    raise SettingsError(
        f"No flows folder lies beside or inside {package}.",
        "Reinstall beamline-ml from its wheel, or run it from a complete checkout.",
    )


def default_state_dir() -> Path:
    """Where the embedded stack keeps its databases, frames and logs."""
    chosen = os.environ.get("BEAMLINE_ML_STATE_DIR")
    return Path(chosen) if chosen else Path.home() / ".local" / "state" / "beamline-ml"


class _Section(BaseModel):
    """A group of settings; an unknown name is an error, because a typo must not silently do nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TiledSettings(_Section):
    """Where runs and results live."""

    uri: str = "http://127.0.0.1:8000"
    """Base address of the tiled server."""
    api_key: SecretStr | None = None
    raw: str = "raw"
    """Path of the container with the bluesky runs."""
    results: str = "results"
    """Path of the container with the results."""
    live: str = "live"
    """Path of the container with what is known of runs that are not over."""


class PrefectSettings(_Section):
    """Where flow runs are recorded and executed."""

    api_url: str = "http://127.0.0.1:4200/api"
    work_pool: str = "beamline"
    deployment: str = "xpcs-fit/beamline"


class DataSettings(_Section):
    """Which files may be read, and how much of them."""

    allowed_roots: tuple[Path, ...] = ()
    """Folders that detector files must lie under to be read directly; others are read through tiled."""
    max_gib: float = Field(default=4.0, gt=0)
    """Largest frame block held in memory at once, in GiB."""
    missing_file_wait_s: float = Field(default=10.0, ge=0)
    """How long to wait for a file that the documents name and the file system does not show yet, in s."""


class FieldPlace(_Section):
    """One more place where this beamline records a value that the analysis needs."""

    path: str
    """Where: ``start.<key>.<key>`` in the start document or ``config.<key>`` in the detector's configuration;
    ``{detector}`` stands for the detector's name."""
    scale: float = Field(default=1.0, gt=0)
    """Factor from the recorded unit to the unit in the field's name (0.001 for eV to keV)."""


class MetadataSettings(_Section):
    """Where this beamline records what the analysis needs, beside the places that beamline-ml knows already.

    Entries here come before the built-in ones; each name is a field of ``beamline_ml.documents.fields``.
    """

    places: dict[str, tuple[FieldPlace, ...]] = {}


class AnalysisSettings(_Section):
    """Defaults of the flow parameters; each of them changes numbers, so each is part of the result's identity."""

    n_q: int = Field(default=8, ge=1, le=64)
    """Number of q rings when no q-map file is given."""
    qmap: str | None = None
    """Path of a q-map file; None computes rings from the run's geometry."""
    mask: str | None = None
    """Path of a mask (.npy, .tif, .h5), nonzero = use."""
    first_frame: int = Field(default=0, ge=0)
    last_frame: int | None = None
    """One past the last frame to use; None means all."""
    normalization: Literal["plain", "static"] = "plain"
    model: Literal["neural_ode", "none"] = "neural_ode"
    """'none' correlates and fits relaxation times only."""
    fit_budget_s: float = Field(default=40.0, gt=0)
    """Time that the dynamics fit may take, in s."""
    forecast_factor: float = Field(default=2.0, ge=1.0, le=4.0)
    """How far to extrapolate, in lengths of the run."""


class LiveSettings(_Section):
    """Following a run while it goes on. None of it changes numbers of the final result."""

    follow: bool = True
    """Whether the watcher follows runs while they go on."""
    update_s: float = Field(default=0.25, gt=0)
    """Shortest time between two updates of the live correlation, in s; updates that take long come less often."""
    fit_budget_s: float = Field(default=10.0, gt=0)
    """Time that one live fit of the dynamics may take, in s; it runs beside the correlation, at low priority."""
    checkpoint_s: float = Field(default=10.0, gt=0)
    """Time between two checkpoints, in s; after a restart the frames since the last one are read again."""
    idle_limit_s: float = Field(default=120.0, gt=0)
    """A run without new frames and without a stop document is closed after so long, in s."""
    keep_days: float = Field(default=1.0, ge=0)
    """How long the live record of a run is kept beside its final result, in days."""
    page_port: int = Field(default=5006, ge=0, le=65535)
    """Preferred port of the live page; another is taken when it is not free."""


class GuidanceSettings(_Section):
    """Beam, instrument and sample environment, for measurement plans; a sample's own entry comes before these.

    None is 'not known': the lines of a plan that need it say so. Units are in the names; beam sizes are full widths at
    half maximum on the sample.
    """

    flux_photons_per_s: float | None = Field(default=None, gt=0)
    """On the sample, averaged over pulses."""
    photon_energy_kev: float | None = Field(default=None, gt=0)
    """Used where no run of the sample says it."""
    beam_width_um: float | None = Field(default=None, gt=0)
    beam_height_um: float | None = Field(default=None, gt=0)
    pulse_rate_hz: float | None = Field(default=None, gt=0)
    temperature_k: float = Field(default=300.0, gt=0)
    temperature_range_k: tuple[float, float] | None = None
    """What the sample environment reaches."""
    spectrometer_q_max_inv_angstrom: float | None = Field(default=None, gt=0)
    """Of the inelastic spectrometer, where there is one."""
    spectrometer_resolution_mev: float | None = Field(default=None, gt=0)
    allowed_heating_k: float = Field(default=1.0, gt=0)
    """How far the beam may warm a sample."""
    relative_error: float = Field(default=0.05, gt=0)
    """To which relaxation times are wanted."""
    longest_run_s: float = Field(default=3600.0, gt=0)
    """Beam time that one run may take."""
    shortest_frame_period_s: float | None = Field(default=None, gt=0)
    """What the detector can do."""
    submit: bool = False
    """Whether proposals may be added to the queue server's queue; without it they are only told."""
    queue_control_address: str | None = None
    """Of the queue server's RE manager, as ``tcp://host:60615``."""
    most_waiting: int = Field(default=1, ge=1)
    """Nothing is added to a queue in which this many items wait already."""
    most_dose_mgy: float | None = Field(default=None, gt=0)
    """Largest dose of one submitted item; an item of unknown dose is not submitted then."""


class AcquisitionSettings(_Section):
    """What the RunEngine process of a profile needs."""

    data_dir: Path | None = None
    """Where the detector writes its files; None means <state_dir>/raw."""
    backup_dir: Path | None = None
    """Where documents go that tiled did not take; None means <state_dir>/documents."""
    movie: Path | None = None
    """Movie that the simulated detector plays back."""
    detector_prefix: str | None = None
    """EPICS prefix of the areaDetector IOC, for example ``XPCS-DET:``; without one the movie is played."""


class DocumentsSettings(_Section):
    """Where ``beamline-ml write-documents`` gets documents from, and where ``subscribe_broker`` sends them."""

    kind: Literal["nats", "kafka", "redis", "zmq", "zmq-proxy"] = "nats"
    """Broker: NATS JetStream, Kafka, a Redis stream, the writer itself over 0MQ, or bluesky's 0MQ proxy (loses
    documents while nobody listens, and is only read from)."""
    address: str | None = None
    """Server; several of NATS or Kafka with commas between. None means the usual port on this machine. With ``zmq`` it
    is the writer's own socket, which the RunEngine connects to."""
    stream: str = Field(default="bluesky-documents", pattern=r"^[A-Za-z0-9_-]+$")
    """JetStream stream and subject, Kafka topic or Redis key; made where it is missing."""
    group: str = Field(default="tiled-writer", pattern=r"^[A-Za-z0-9_-]+$")
    """Name under which the broker remembers how far the writer has come."""
    serializer: Literal["json", "msgpack"] = "json"
    """What is sent; both are understood when received."""
    prefix: str = ""
    """Prefix that publishers to bluesky's 0MQ proxy use; empty takes all."""
    user: str | None = None
    password: SecretStr | None = None
    tls_ca: Path | None = None
    """Certificate authority of the broker; None uses TLS only where the address asks for it."""
    kafka: dict[str, SecretStr] = {}
    """More librdkafka settings, for example ``{"sasl.mechanism": "SCRAM-SHA-512"}``."""
    max_message_mib: float = Field(default=8.0, gt=0)
    """A larger message is no document, in MiB."""
    keep_messages: int = Field(default=1_000_000, ge=1_000)
    """How many messages a stream that is made here keeps (NATS, Redis); the oldest go first, written or not."""


class Settings(BaseSettings):
    """Everything that can be set, in one tree."""

    model_config = SettingsConfigDict(
        env_prefix="BEAMLINE_ML_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
    )

    profile: str = "sim_xpcs"
    """Name of a shipped profile, or the path of a profile folder."""
    state_dir: Path = Field(default_factory=default_state_dir)
    tiled: TiledSettings = TiledSettings()
    prefect: PrefectSettings = PrefectSettings()
    data: DataSettings = DataSettings()
    metadata: MetadataSettings = MetadataSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    live: LiveSettings = LiveSettings()
    acquisition: AcquisitionSettings = AcquisitionSettings()
    documents: DocumentsSettings = DocumentsSettings()
    guidance: GuidanceSettings = GuidanceSettings()

    @property
    def profile_dir(self) -> Path:
        """Folder of the profile."""
        return profile_dir(self.profile)

    @property
    def data_dir(self) -> Path:
        """Where the detector writes."""
        return self.acquisition.data_dir or self.state_dir / "raw"

    @property
    def backup_dir(self) -> Path:
        """Where documents wait that tiled has not taken."""
        return self.acquisition.backup_dir or self.state_dir / "documents"

    @property
    def allowed_roots(self) -> tuple[Path, ...]:
        """Folders detector files may be read from: those configured, or the detector's own."""
        return self.data.allowed_roots or (self.data_dir,)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over the running stack's file over the profile's file."""
        profile_file = profile_dir(os.environ.get("BEAMLINE_ML_PROFILE", "sim_xpcs")) / "beamline.toml"
        stack_file = default_state_dir() / "settings.toml"
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, stack_file),
            TomlConfigSettingsSource(settings_cls, profile_file),
        )


def profile_dir(profile: str) -> Path:
    """Folder of a profile given by name or path.

    Raises
    ------
    SettingsError
        When there is no such folder.
    """
    for candidate in (Path(profile), shipped_root() / "profiles" / profile):
        if candidate.is_dir():
            return candidate.resolve()
    known = sorted(p.name for p in (shipped_root() / "profiles").iterdir() if p.is_dir())
    raise SettingsError(f"There is no profile {profile!r}.", f"Use one of {known} or the path of a profile folder.")


def copy_template(folder: Path) -> list[Path]:
    """Copy the profile template to a new folder and return the files made.

    Raises
    ------
    SettingsError
        When the folder exists already: nothing is overwritten.
    """
    if folder.exists():
        raise SettingsError(f"{folder} exists already.", "Name a new folder, or edit that one.")
    shutil.copytree(shipped_root() / "profiles" / "template", folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def load_settings(**overrides: Any) -> Settings:
    """Read profile, running stack, environment and arguments into one tree.

    Raises
    ------
    SettingsError
        When a value does not validate or a TOML file cannot be parsed; the message lists every offending entry.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError(
            f"The settings do not make sense: {wrong}.",
            "Correct the profile's beamline.toml or the BEAMLINE_ML_* variable of that name.",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"A settings file is no valid TOML: {error}.", "Correct it, or delete it.") from error
