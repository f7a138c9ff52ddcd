"""Plans with this beamline's detector and geometry filled in."""

from beamline_ml.acquisition import plans
from beamline_ml.records import Geometry

# SET: what the detector sees. Better: read the energy from the monochromator and the distance from its motor here.
GEOMETRY = Geometry(
    photon_energy_kev=9.65,
    detector_distance_m=10.0,
    pixel_size_m=75e-6,
    beam_center_row_px=512.0,
    beam_center_column_px=512.0,
)


def xpcs_burst(n_frames: int, exposure_s: float, period_s: float, sample: dict | str, md: dict | None = None):
    """Take a burst of ``n_frames`` frames of ``sample``, one every ``period_s`` seconds."""
    return (
        yield from plans.xpcs_burst(
            n_frames, exposure_s, period_s, sample=sample, detector=det, geometry=GEOMETRY, md=md
        )
    )
