"""The area detector, which plays a movie back at its true rate.

With BEAMLINE_ML_ACQUISITION__DETECTOR_PREFIX set, an areaDetector IOC plays it, and everything else stays as it is.
"""

from beamline_ml.acquisition import connect_area_detector

det = connect_area_detector(settings, settings.data_dir)
