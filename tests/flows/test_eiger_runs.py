"""A run whose documents name an Eiger master is fitted like any other."""

import numpy as np
import pytest

from flows.xpcs_fit import xpcs_fit
from tests.flows.conftest import N_FRAMES, SHAPE
from tests.frames.eiger_files import write_eiger

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def test_an_eiger_series_becomes_the_result_of_its_frames(record_run, take_burst, tiled_server, burst_counts, beamline):
    folder = tiled_server.frames_dir / "eiger-flow"
    folder.mkdir()
    mask = np.zeros(SHAPE, np.uint32)
    mask[3, 5] = mask[20, 12] = 1
    master = write_eiger(folder, burst_counts, (100, 60), mask=mask)
    shape = (N_FRAMES, *SHAPE)
    result = beamline[xpcs_fit(record_run(master, shape=shape, scan_id=520).metadata["start"]["uid"])]
    np.save(folder / "mask.npy", mask == 0)
    plain = beamline[xpcs_fit(take_burst(scan_id=521).metadata["start"]["uid"], mask=str(folder / "mask.npy"))]
    np.testing.assert_array_equal(result.c2, plain.c2)
    assert result.metadata["provenance"]["frames_read_by"] == "file"
    # The master was written for another distance and exposure; the run is believed, and says so.
    told = [warning for warning in result.warnings if "that of the run was used" in warning]
    assert [warning.split(" = ")[0] for warning in told] == [
        "The run says detector_distance_m",
        "The run says exposure_s",
    ]
