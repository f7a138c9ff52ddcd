"""What the frames say: masks, q-maps, two-time and multi-tau correlation, g2 and its fits, frame quality.

Numpy arrays in, records out; nothing here reads a file. Counts are summed exactly as integers, so results do not depend
on how the frames arrived, and every normalisation is applied at read-out.
"""

from beamline_ml.correlation.ageing import fit_ageing
from beamline_ml.correlation.bad_pixels import bad_pixels
from beamline_ml.correlation.beam_center import BeamCenter, register_beam_center
from beamline_ml.correlation.binning import bin_time, coarser_rows
from beamline_ml.correlation.event_multi_tau import multi_tau_events
from beamline_ml.correlation.growing import GrowingTwoTime
from beamline_ml.correlation.long_run import LongTwoTimeAccumulator
from beamline_ml.correlation.multi_tau import MultiTauAccumulator, age_lag_two_time, multi_tau
from beamline_ml.correlation.one_time import g2_at_ages, g2_from_two_time
from beamline_ml.correlation.power_law import fit_power_law
from beamline_ml.correlation.qmap import QMap
from beamline_ml.correlation.quality import frame_quality
from beamline_ml.correlation.relaxation import fit_relaxation
from beamline_ml.correlation.shadows import shadows
from beamline_ml.correlation.two_time import TwoTimeAccumulator, two_time
from beamline_ml.correlation.unusable import UnusablePixels

__all__ = [
    "BeamCenter",
    "GrowingTwoTime",
    "LongTwoTimeAccumulator",
    "MultiTauAccumulator",
    "QMap",
    "TwoTimeAccumulator",
    "UnusablePixels",
    "age_lag_two_time",
    "bad_pixels",
    "bin_time",
    "coarser_rows",
    "fit_ageing",
    "fit_power_law",
    "fit_relaxation",
    "frame_quality",
    "g2_at_ages",
    "g2_from_two_time",
    "multi_tau",
    "multi_tau_events",
    "register_beam_center",
    "shadows",
    "two_time",
]
