"""The area detector, which plays a movie back at its true rate."""

from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices

from beamline_ml.acquisition import MovieDetector

with init_devices():
    det = MovieDetector(
        StaticPathProvider(UUIDFilenameProvider(), settings.data_dir),
        movie_path=settings.acquisition.movie,
        name="det",
    )
