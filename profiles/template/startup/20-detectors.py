"""The area detector of this beamline: any ophyd-async StandardDetector.

PREFIX is the one value to SET here; an empty one needs no EPICS and plays a movie instead, for trying out.
"""

from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices

PREFIX = "XPCS-DET:"  # SET: EPICS prefix of the areaDetector IOC; "" plays a movie
frames_dir = settings.allowed_roots[0]
path_provider = StaticPathProvider(UUIDFilenameProvider(), frames_dir)

if PREFIX:
    from ophyd_async.epics import adcore, adsimdetector

    with init_devices():
        det = adsimdetector.SimDetector(PREFIX, adcore.ADWriterFactory.hdf(path_provider), name="det")
else:
    from beamline_ml.acquisition import MovieDetector

    with init_devices():
        det = MovieDetector(path_provider, movie_path=settings.acquisition.movie, name="det")
