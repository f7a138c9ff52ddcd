"""A simulated XPCS area detector: an ophyd-async detector that plays a movie back as if it took it now."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorDataLogic,
    DetectorTriggerLogic,
    PathProvider,
    SignalR,
    SignalRW,
    StandardDetector,
    StreamResourceDataProvider,
    StreamResourceInfo,
    TriggerInfo,
    soft_signal_r_and_setter,
    soft_signal_rw,
)

from beamline_ml.acquisition.frame_file import FRAMES, TIMESTAMP_CHUNK, TIMESTAMPS
from beamline_ml.acquisition.playback import Playback, check_playable, chunk_frames
from beamline_ml.errors import AcquisitionError
from beamline_ml.frames.movie import MovieFile, open_movie
from beamline_ml.records import Geometry

_GEOMETRY_UNITS = {
    "photon_energy_kev": "keV",
    "detector_distance_m": "m",
    "pixel_size_m": "m",
    "beam_center_row_px": "pixel",
    "beam_center_column_px": "pixel",
}


@dataclass(frozen=True, slots=True)
class MovieHeader:
    """What a movie says about itself, read without its frames."""

    geometry: Geometry
    n_frames: int
    frame_shape: tuple[int, int]
    frame_period_s: float
    exposure_s: float
    sample: dict[str, object]


def _open(path: Path | None) -> MovieFile:
    if path is None:
        raise AcquisitionError(
            "The simulated detector has no movie to play.",
            "Set BEAMLINE_ML_ACQUISITION__MOVIE (or acquisition.movie in beamline.toml) to a movie file.",
        )
    return open_movie(path)


def movie_header(path: Path | None) -> MovieHeader:
    """Read geometry, timing and sample of a movie.

    Raises
    ------
    AcquisitionError
        When no movie is set.
    FileMissing, FramesError
        When there is no such file, or it holds no frames.
    """
    if path is None or not path.is_file():
        _open(path)  # says what is wrong
    assert path is not None
    status = path.stat()
    return _read_header(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_header(path: Path, modified_ns: int, size_bytes: int) -> MovieHeader:
    """Header of a movie as it was at that time; a plan asks for it again with each burst."""
    with open_movie(path) as movie:
        return MovieHeader(
            geometry=movie.geometry,
            n_frames=movie.n_frames,
            frame_shape=movie.frame_shape,
            frame_period_s=movie.frame_period_s,
            exposure_s=movie.exposure_s,
            sample=movie.sample,
        )


class _Source:
    """State that the three logics share: the open movie and the burst that plays it."""

    def __init__(self, movie_path: Path | None) -> None:
        self.movie_path = movie_path
        self.n_frames = 0
        self.movie: MovieFile | None = None
        self.playback: Playback | None = None
        self.playing: Future[None] | None = None
        self.written, self.set_written = soft_signal_r_and_setter(int)

    def open_movie(self, n_frames: int, period_s: float) -> MovieFile:
        """Open and check the movie for a burst; a period of 0 means the movie's own."""
        movie = _open(self.movie_path)
        try:
            check_playable(movie, n_frames, period_s or movie.frame_period_s)
        except AcquisitionError:
            movie.close()
            raise
        self.movie, self.n_frames = movie, n_frames
        return movie

    def open_file(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        """Create the frame file of a burst."""
        assert self.movie is not None

        def tell(n_written: int) -> None:
            loop.call_soon_threadsafe(self.set_written, n_written)

        self.playback = Playback(self.movie, path, self.n_frames, tell)

    async def stop(self) -> None:
        """End a burst that may be going on; raises what went wrong in it."""
        playback, playing = self.playback, self.playing
        self.playback = self.playing = None
        if playback is not None:
            await asyncio.to_thread(playback.stop)
        if playing is not None:
            playing.result()


class _Trigger(DetectorTriggerLogic):
    """Internal trigger only: the movie sets the pace."""

    def __init__(self, source: _Source, configuration: dict[str, SignalRW[float]]) -> None:
        self._source = source
        self._configuration = configuration

    def config_sigs(self) -> set[SignalR]:
        return set(self._configuration.values())

    async def prepare_internal(self, num: int, livetime: float, deadtime: float) -> None:
        movie = await asyncio.to_thread(self._source.open_movie, num, livetime + deadtime)
        values = {name: getattr(movie.geometry, name) for name in _GEOMETRY_UNITS}
        values["exposure_s"] = livetime or movie.exposure_s
        values["frame_period_s"] = movie.frame_period_s
        for name, value in values.items():
            await self._configuration[name].set(value)

    async def default_trigger_info(self) -> TriggerInfo:
        return TriggerInfo()


class _Acquire(DetectorAcquireLogic):
    def __init__(self, source: _Source) -> None:
        self._source = source

    async def start_acquiring(self) -> None:
        if self._source.playback is None or self._source.playing is not None:
            raise AcquisitionError(
                "This detector plays one burst each time it is staged.",
                "Take all frames in one burst (xpcs_burst), or stage the detector again.",
            )
        self._source.playing = self._source.playback.start()

    async def wait_for_idle(self) -> None:
        if self._source.playing is not None:
            await asyncio.wrap_future(self._source.playing)

    async def ensure_stopped(self) -> None:
        await self._source.stop()


class _Data(DetectorDataLogic):
    """Says where the frames go and what the documents tell about them."""

    def __init__(self, source: _Source, path_provider: PathProvider) -> None:
        self._source = source
        self._path_provider = path_provider

    async def prepare_unbounded(self, datakey_name: str) -> StreamResourceDataProvider:
        source, movie = self._source, self._source.movie
        assert movie is not None
        info = self._path_provider(datakey_name)
        path = Path(info.directory_path) / f"{info.filename}.h5"
        source.set_written(0)
        await asyncio.to_thread(source.open_file, path, asyncio.get_running_loop())
        return StreamResourceDataProvider(
            uri=f"{info.directory_uri}{info.filename}.h5",
            mimetype="application/x-hdf5",
            collections_written_signal=source.written,
            resources=[_frames_resource(datakey_name, movie, source.n_frames), _times_resource(datakey_name)],
        )

    def get_hinted_fields(self, datakey_name: str) -> list[str]:
        return [datakey_name]


def _frames_resource(name: str, movie: MovieFile, n_frames: int) -> StreamResourceInfo:
    return StreamResourceInfo(
        data_key=name,
        shape=movie.frame_shape,
        chunk_shape=(chunk_frames(movie.frame_period_s, n_frames), *movie.frame_shape),
        dtype_numpy=movie.dtype.str,
        parameters={"dataset": FRAMES, "swmr": True},
    )


def _times_resource(name: str) -> StreamResourceInfo:
    return StreamResourceInfo(
        data_key=f"{name}-timestamp",
        shape=(),
        chunk_shape=(TIMESTAMP_CHUNK,),
        dtype_numpy="<f8",
        parameters={"dataset": TIMESTAMPS, "swmr": True},
    )


class MovieDetector(StandardDetector):
    """Area detector that plays a movie back at its true rate into an SWMR HDF5 file.

    Parameters
    ----------
    path_provider
        Where its files go; the folder must exist.
    movie_path
        Movie to play: written by :func:`beamline_ml.frames.movie.write_movie`, or any areaDetector HDF5 file with
        scattering frames. It may be set later, and is opened with each burst.
    name
        Name of the device, and of its data key.

    Notes
    -----
    One event is one frame. Multi-frame events would hide all frames until the end of the burst.
    """

    def __init__(self, path_provider: PathProvider, movie_path: Path | None = None, name: str = "") -> None:
        self._source = _Source(movie_path)
        configuration = {
            key: soft_signal_rw(float, 0.0, units=unit, precision=6)
            for key, unit in {**_GEOMETRY_UNITS, "exposure_s": "s", "frame_period_s": "s"}.items()
        }
        for key, signal in configuration.items():
            setattr(self, key, signal)
        self.add_detector_logics(
            _Trigger(self._source, configuration), _Acquire(self._source), _Data(self._source, path_provider)
        )
        super().__init__(name=name)

    @property
    def movie_path(self) -> Path | None:
        """Movie that the next burst plays."""
        return self._source.movie_path

    @movie_path.setter
    def movie_path(self, path: Path | None) -> None:
        self._source.movie_path = path

    def header(self) -> MovieHeader:
        """Geometry, timing and sample of the movie that the next burst plays."""
        return movie_header(self._source.movie_path)
