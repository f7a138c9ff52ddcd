"""The kernel is chosen by what it costs: all parts of it, whatever else the machine does."""

import numpy as np
import pytest

from beamline_ml.correlation import choice

RATES = {"float": 4e10, "bits": 1e12, "tally": 1e11, "events": 4e8}
"""Products a second of a processor without 8-bit products."""


def counts(mean: float) -> np.ndarray:
    return np.random.default_rng(0).poisson(mean, (64, 4096)).astype(np.uint8)


@pytest.mark.parametrize(
    ("mean", "expected"),
    [(0.0005, "events"), (0.02, "tally"), (0.13, "bits"), (0.4, "float"), (3.0, "float")],
)
def test_pixels_with_several_photons_cost_their_pairs(
    monkeypatch: pytest.MonkeyPatch, mean: float, expected: str
) -> None:
    monkeypatch.setattr(choice, "kernel_rates", lambda: RATES)
    frames = counts(mean)
    assert choice.choose_kernel(frames, int(frames.max())) == expected


def test_8_bit_products_are_taken_where_they_are_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "kernel_rates", lambda: {**RATES, "int8": 4e11})
    frames = counts(3.0)
    assert choice.choose_kernel(frames, int(frames.max())) == "int8"
    assert choice.choose_kernel(frames, 70_000) != "int8", "they do not hold such counts"


def test_an_unlucky_first_look_does_not_shut_out_8_bit_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thread waits for a busy processor a product of microseconds takes milliseconds."""
    unhindered = choice.kernel_rates.__wrapped__().get("int8", 0.0)
    if unhindered <= 2.0 * choice.SLOW:
        pytest.skip("torch has no fast 8-bit product on this machine")
    kernel, clock = choice.KERNELS["int8"], choice.time.thread_time
    calls = 0

    class Hindered:
        def __init__(self, edges: np.ndarray) -> None:
            self._kernel = kernel(edges)

        def add(self, *where: object) -> None:
            nonlocal calls
            calls += 1
            self._kernel.add(*where)

    def slow_at_first() -> float:
        return clock() + 0.005 * min(calls, 8)

    monkeypatch.setitem(choice.KERNELS, "int8", Hindered)
    monkeypatch.setattr(choice.time, "thread_time", slow_at_first)
    rates = choice.kernel_rates.__wrapped__()
    # The first look alone would be thousands of times too slow; how fast this machine is, is not asked.
    assert rates["int8"] > 0.1 * unhindered
    assert calls > choice.FIRST_REPEATS, "the large sample was measured too"
