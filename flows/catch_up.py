"""Catch up: have every finished XPCS run fitted that has neither a complete result nor a recorded failure."""

from __future__ import annotations

from prefect import flow, get_run_logger, task


@task
def submit_missing(days: float) -> list[str]:
    """Ask for the fits that are missing; asking twice for one does nothing."""
    from beamline_ml.service.catch_up import submit_missing_fits
    from beamline_ml.settings import load_settings

    return submit_missing_fits(load_settings(), days)


@flow(name="catch-up")
def catch_up(days: float = 7.0) -> list[str]:
    """Find runs of the last ``days`` days without an outcome, submit their fits, and return their uids."""
    uids = submit_missing(days)
    get_run_logger().info("%d runs had no result: %s", len(uids), ", ".join(uids) or "none")
    return uids
