"""Plans with this beamline's detector and geometry filled in."""

from beamline_ml.acquisition import movie_header, plans


def xpcs_burst(
    n_frames: int | None = None,
    exposure_s: float | None = None,
    period_s: float | None = None,
    sample: dict | str | None = None,
    md: dict | None = None,
):
    """Take a burst; what is not given is taken from the movie that the detector plays."""
    movie = movie_header(settings.acquisition.movie)
    return (
        yield from plans.xpcs_burst(
            movie.n_frames if n_frames is None else n_frames,
            movie.exposure_s if exposure_s is None else exposure_s,
            movie.frame_period_s if period_s is None else period_s,
            sample=movie.sample if sample is None else sample,
            detector=det,
            geometry=movie.geometry,
            md=md,
        )
    )
