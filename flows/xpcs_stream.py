"""Flow ``xpcs-stream``: follow a run while it goes on, and keep ``live/`` in tiled up to date.

It is called in the resident process of :mod:`beamline_ml.live.resident`, which has everything imported: a process of
its own for each run would start too late. Prefect shows it beside the fits.
"""

from __future__ import annotations

from concurrent.futures import Future

from prefect import flow


@flow(name="xpcs-stream", validate_parameters=False)
def xpcs_stream(run_uid: str, following: Future[str]) -> str:
    """Correlate, fit and forecast a run as its frames land; returns how it ended: 'stopped' or 'idle'.

    Parameters
    ----------
    run_uid
        Uid of the run.
    following
        What :meth:`beamline_ml.live.follower.Follower.follow` returns, called in a thread of its own: frames do not
        wait until Prefect has taken note of the run.
    """
    return following.result()
