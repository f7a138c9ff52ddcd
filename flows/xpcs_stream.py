"""Flow ``xpcs-stream``: follow a run while it goes on, and keep ``live/`` in tiled up to date.

It is called in the resident process of :mod:`beamline_ml.live.resident`, which has everything imported: a process of
its own for each run would start too late. Prefect shows it beside the fits.
"""

from __future__ import annotations

from typing import Any

from prefect import flow


@flow(name="xpcs-stream", validate_parameters=False)
def xpcs_stream(run_uid: str, follower: Any) -> str:
    """Correlate, fit and forecast a run as its frames land; returns how it ended: 'stopped' or 'idle'.

    Parameters
    ----------
    run_uid
        Uid of the run.
    follower
        A :class:`beamline_ml.live.follower.Follower` that has begun with this run.
    """
    ended: str = follower.follow()
    return ended
