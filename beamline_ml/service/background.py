"""Work in a thread that nobody has to wait for, not even the end of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def begun(work: Callable[[], T], name: str) -> Future[T]:
    """What ``work`` returns or raises, called now in a daemon thread of this name.

    An executor's threads would be waited for when the process ends, also those that wait for a service which is gone.
    """
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # from here on nobody can cancel it, so its outcome always has a place

    def do() -> None:
        try:
            outcome = work()
        except BaseException as error:  # noqa: BLE001 - whoever asks for the outcome gets it
            done.set_exception(error)
        else:
            done.set_result(outcome)

    threading.Thread(target=do, name=name, daemon=True).start()
    return done
