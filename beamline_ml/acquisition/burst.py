"""Take one burst with a profile, in a process of its own: ``python -m beamline_ml.acquisition.burst --json``."""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from beamline_ml.errors import AcquisitionError, BeamlineMLError
from beamline_ml.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class Burst:
    """What a burst took."""

    run_uid: str
    n_frames: int
    scan_time_s: float
    """From the call of the RunEngine to its return, in s."""
    ideal_time_s: float
    """Frames times frame period, in s."""
    ended_at: float
    """When the RunEngine returned, seconds since the epoch."""
    delivered: bool
    """Whether tiled had all documents when the process ended; else they wait on disk."""


def load_profile(folder: Path) -> dict[str, Any]:
    """Run the startup files of a profile in order, as IPython and queueserver do, and return what they define."""
    namespace: dict[str, Any] = {}
    for path in sorted((folder / "startup").glob("[0-9]*.py")):
        namespace = {**namespace, **runpy.run_path(str(path), init_globals=namespace)}
    return namespace


def take_burst(settings: Settings, n_frames: int | None = None, sample: dict[str, Any] | None = None) -> Burst:
    """Load the profile and take one burst in this process.

    Parameters
    ----------
    settings
        Names the profile.
    n_frames
        None takes as many as the movie has.
    sample
        Sample entry of the start document; None takes the movie's.

    Raises
    ------
    AcquisitionError
        When the profile's detector cannot do that.
    """
    profile = load_profile(settings.profile_dir)
    plan = profile["xpcs_burst"](n_frames=n_frames, sample=sample)
    taken: list[dict[str, Any]] = []
    profile["RE"].subscribe(lambda name, doc: taken.append(doc), "start")
    began = time.monotonic()
    profile["RE"](plan)
    scan_time_s, ended_at = time.monotonic() - began, time.time()
    xpcs = taken[0]["xpcs"]
    return Burst(
        run_uid=taken[0]["uid"],
        n_frames=xpcs["n_frames"],
        scan_time_s=scan_time_s,
        ideal_time_s=xpcs["n_frames"] * xpcs["frame_period_s"],
        ended_at=ended_at,
        delivered=profile["publication"].close() and not (settings.backup_dir / f"{taken[0]['uid']}.jsonl").exists(),
    )


def start_burst(settings: Settings, n_frames: int | None = None, movie: Path | None = None) -> subprocess.Popen[str]:
    """Start a burst in a process of its own; :func:`read_burst` waits for it.

    Parameters
    ----------
    settings
        The running stack's; the process finds it through the state directory.
    n_frames
        None takes as many as the movie has.
    movie
        Movie to play; None plays the one that the settings name.
    """
    command = [sys.executable, "-m", "beamline_ml.acquisition.burst", "--json"]
    if n_frames is not None:
        command += ["--n-frames", str(n_frames)]
    environment = {
        **os.environ,
        "BEAMLINE_ML_STATE_DIR": str(settings.state_dir),
        "BEAMLINE_ML_PROFILE": str(settings.profile_dir),
    }
    if movie is not None:
        environment["BEAMLINE_ML_ACQUISITION__MOVIE"] = str(movie)
        # Whoever asks for a movie, as the demo does, must not start the beamline's detector.
        environment["BEAMLINE_ML_ACQUISITION__DETECTOR_PREFIX"] = ""
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_burst(process: subprocess.Popen[str]) -> Burst:
    """Wait for a burst that :func:`start_burst` started.

    Raises
    ------
    AcquisitionError
        When it failed, with the last thing it said.
    """
    output, errors = process.communicate()
    if process.returncode != 0:
        last = (errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise AcquisitionError(f"The burst failed: {last}", "Run beamline-ml doctor, then take it again.")
    return Burst(**json.loads(output.strip().splitlines()[-1]))


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m beamline_ml.acquisition.burst``."""
    parser = argparse.ArgumentParser(prog="beamline_ml.acquisition.burst", description=__doc__)
    parser.add_argument("--n-frames", type=int, default=None, help="how many frames; default: all of the movie")
    parser.add_argument("--sample", default=None, help="name of the sample; default: the movie's")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args(arguments)
    try:
        burst = take_burst(load_settings(), options.n_frames, {"name": options.sample} if options.sample else None)
    except BeamlineMLError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(asdict(burst)))
    else:
        print(f"Run {burst.run_uid}: {burst.n_frames} frames in {burst.scan_time_s:.2f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
