"""Ask whether an areaDetector answers: ``python -m beamline_ml.acquisition.probe PREFIX``.

The EPICS client keeps its connections as long as its process lives, so whoever only wants to know asks in another.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bluesky import RunEngine

from beamline_ml.acquisition.area_detector import connect_area_detector
from beamline_ml.errors import AcquisitionError
from beamline_ml.settings import AcquisitionSettings, Settings


def main(arguments: list[str] | None = None) -> int:
    """Exit with 0 when all records answer, else print culprit and remedy as JSON and exit with 1."""
    parser = argparse.ArgumentParser(prog="beamline_ml.acquisition.probe", description="Does an areaDetector answer?")
    parser.add_argument("prefix", help="its EPICS prefix, with the colon")
    parser.add_argument("--timeout-s", type=float, default=3.0, help="how long to wait, in s; default: 3")
    options = parser.parse_args(arguments)
    RunEngine()  # gives devices the loop that they are connected in
    settings = Settings(acquisition=AcquisitionSettings(detector_prefix=options.prefix))
    try:
        connect_area_detector(settings, Path.cwd(), timeout_s=options.timeout_s)
    except AcquisitionError as error:
        print(json.dumps({"culprit": error.culprit, "remedy": error.remedy}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
