"""The area detector of this beamline: the IOC that acquisition.detector_prefix names, or a movie where it is empty.

SimDetector asks only for what all areaDetector drivers have, and so does for any driver that times itself. Where the
driver needs more, name its ophyd-async class:

    from ophyd_async.epics.adpilatus import PilatusDetector
    det = connect_area_detector(settings, settings.allowed_roots[0], PilatusDetector)

or make any other ophyd-async StandardDetector named det here.
"""

from beamline_ml.acquisition import connect_area_detector

det = connect_area_detector(settings, settings.allowed_roots[0])
