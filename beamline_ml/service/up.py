"""Run the embedded stack from ordinary, synchronous code: ``python -m beamline_ml.service.up``."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from beamline_ml.errors import BeamlineMLError
from beamline_ml.service.stack import Progress, Stack, Step, silent
from beamline_ml.settings import Settings, load_settings

_LISTEN_S = 0.2
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def embedded_stack(settings: Settings, progress: Progress = silent) -> Iterator[Stack]:
    """Bring the stack up, yield it when all of it is ready, and take it down at the end, whatever happens.

    Ctrl-C and SIGTERM end it at any point, also while it starts; a second Ctrl-C does not cut the end short.

    Parameters
    ----------
    settings
        Profile and state directory.
    progress
        Called with each step, in another thread.

    Raises
    ------
    ServiceError
        When another stack uses the state directory, or a service does not start.
    """
    supervisor = _Supervisor(settings, progress)
    restore = _raise_on(_ENDING_SIGNALS)
    try:
        supervisor.start()
        yield supervisor.wait_until_ready()
    finally:
        ignored = dict.fromkeys((*_ENDING_SIGNALS, signal.SIGINT), signal.SIG_IGN)
        before = _set_handlers(ignored)
        supervisor.end()
        _set_handlers({**before, **restore})


def run_until_stopped(settings: Settings, progress: Progress = silent) -> NoReturn:
    """Keep the stack up until Ctrl-C or SIGTERM; raises KeyboardInterrupt or SystemExit then."""
    with embedded_stack(settings, progress) as stack:
        stack.wait()


class _Supervisor:
    """The stack's event loop, in a thread of its own."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.ready: Future[Stack] = Future()
        self._settings = settings
        self._progress = progress
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")

    def start(self) -> None:
        self._thread.start()

    def wait_until_ready(self) -> Stack:
        """The stack, once all of it is ready.

        The wait is cut into short ones: the system may hand a signal to another thread, and a main thread that sleeps
        without end would notice Ctrl-C only when the start is over.
        """
        while True:
            try:
                return self.ready.result(timeout=_LISTEN_S)
            except TimeoutError:
                if self.ready.done():
                    raise

    def end(self) -> None:
        """Take the stack down and wait for it."""
        if self._thread.ident is None:
            return
        self._begun.wait()
        assert self._loop is not None
        assert self._task is not None
        if self._thread.is_alive() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for the stack
            if not self.ready.done():
                self.ready.set_exception(error)

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._begun.set()
        async with Stack(self._settings, self._progress) as stack:
            self.ready.set_result(stack)
            await asyncio.Event().wait()


def _raise_on(numbers: tuple[signal.Signals, ...]) -> dict[signal.Signals, Any]:
    """Let these signals end the main thread like an exit, and return the handlers before."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    return _set_handlers(dict.fromkeys(numbers, leave))


def _set_handlers(handlers: dict[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    """Set handlers, where this is the main thread, and return those before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number, handler in handlers.items()}


def _print_step(step: Step) -> None:
    print(f"{step.seconds:6.1f} s  {step.name} {step.state}", flush=True)


def main() -> int:
    """Entry point of ``python -m beamline_ml.service.up``: the plain variant of ``beamline-ml up``."""
    try:
        run_until_stopped(load_settings(), _print_step)
    except BeamlineMLError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
