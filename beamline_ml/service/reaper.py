"""End what a stack started, whatever happened to the stack itself.

Every process of a stack carries a token in its environment, as do the processes that those start (a worker puts flow
runs into sessions of their own, so process groups are not enough). Run as a program, this file waits for its standard
input to close, which the operating system does when the supervisor dies, and then ends all that carry the token.
It imports the standard library only, because it must start in milliseconds and outlive everything else.
"""

import contextlib
import os
import signal
import sys
import time

VARIABLE = "BEAMLINE_ML_STACK"
"""Environment variable that carries the token."""

LAST_BREATH_S = 5.0
"""How long a process that has lost its memory may take to close its files."""


def marked(token: str) -> list[int]:
    """Process ids (other than this one) whose environment carries the token."""
    entry = f"{VARIABLE}={token}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        # Processes of other users, and those that just ended, cannot be read.
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if entry in file.read().split(b"\0"):
                found.append(int(name))
    return found


def end_marked(token: str, grace_s: float) -> None:
    """Ask all that carry the token to end, kill those that still run after ``grace_s`` seconds, wait for their end."""
    deadline = time.monotonic() + grace_s
    pids = marked(token)
    ending = set(pids)
    _signal(pids, signal.SIGTERM)
    while (pids := marked(token)) and time.monotonic() < deadline:
        time.sleep(0.05)
    while pids:
        # Again and again: a process may start another between the listing and its death.
        ending.update(pids)
        _signal(pids, signal.SIGKILL)
        time.sleep(0.05)
        pids = marked(token)
    _wait_until_gone(ending)


def _wait_until_gone(ending: set[int]) -> None:
    """A process that ends gives back its memory, where the token stands, before its files and ports."""
    deadline = time.monotonic() + LAST_BREATH_S
    while any(map(_runs, ending)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Whether a process is there and has not ended; a zombie has."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            # The second field, a name in parentheses, may hold anything.
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end_marked(sys.argv[1], grace_s=1.5)
