"""What is known of a run that is not over, as it stands under ``live/`` in tiled; it grows with the run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import count
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from tiled.queries import Key

from beamline_ml.live.scoring import KeptForecast
from beamline_ml.records import RunDescription, TwoTime
from beamline_ml.results.content import ResultArray, ResultTable
from beamline_ml.results.identity import json_safe, result_key

SPEC = "XPCSLive"
_SO_FAR = "two-time correlation so far; columns follow their rows within seconds"


def record_key(run: RunDescription) -> str:
    """Key below ``live/``; that of the final result below ``results/`` begins with it."""
    return result_key(run.scan_id, run.sample_name, run.uid)


class LiveRecord:
    """The live container of one run.

    Parameters
    ----------
    container
        tiled's client of ``live/``.
    run
        What the run says about itself.
    time_binning
        Frames per row of C2; chosen for the whole run, so that rows never change.
    elsewhere
        Begin a new record, under a key that nobody has used.
    """

    def __init__(self, container: Any, run: RunDescription, time_binning: int, *, elsewhere: bool = False) -> None:
        self._container = container
        self._run = run
        self._time_binning = time_binning
        self._node = self._created(f"_{uuid4().hex[:4]}") if elsewhere else self._opened()
        self._children: dict[str, Any] = {}
        self._published = self._mirrored = self._profiled = self._n_forecasts = 0

    @property
    def key(self) -> str:
        """Key below ``live/``."""
        return str(self._node.item["id"])

    def _opened(self) -> Any:
        """The run's container: a new one, or the one that an earlier follower began."""
        for node in self._container.search(Key("scan_uid") == self._run.uid).values():
            node.update_metadata(self._beginning(), drop_revision=True)
            return node
        return self._created("")

    def _created(self, suffix: str) -> Any:
        key = record_key(self._run) + suffix
        return self._container.create_container(key=key, metadata=self._beginning(), specs=[SPEC])

    def _beginning(self) -> dict[str, Any]:
        """What is known of the run before any frame is correlated."""
        metadata = {
            "scan_uid": self._run.uid,
            "scan_id": self._run.scan_id,
            "sample": dict(self._run.sample),
            "technique": "xpcs",
            "run_time": self._run.started_at,
            "frame_period_s": self._run.frame_period_s,
            "time_binning": self._time_binning,
            "experiment": asdict(self._run.geometry),
            "status": "live",
            "result_key": None,
            "health": {},
        }
        told: dict[str, Any] = json_safe(metadata)
        return told

    def publish_rows(self, rows: TwoTime, *, anew: bool) -> None:
        """Add the rows of C2 that are new, with all columns before them, in one request: the most urgent part.

        Their mirror image waits for :meth:`publish_mirror_image`.

        Parameters
        ----------
        rows
            C2 of the run so far, binned as it is published.
        anew
            Write everything, because other pixels are used than before.
        """
        n = rows.c2.shape[1]
        if n <= self._published and not anew:
            return
        # Of floating-point frames the last diagonal element follows its neighbours, so it changes once.
        first = 0 if anew else max(0, self._published - 1)
        if "c2" not in self._children and not self._found("c2"):
            every = f", averaged over {self._time_binning} frames" if self._time_binning > 1 else ""
            dims = ("q", "t1", "t2")
            self.put_array(ResultArray("c2", rows.c2, dims, "1", f"{_SO_FAR}{every}"))
            first = 0
        else:
            self._patch("c2", rows.c2[:, first:, :], (0, first, 0))
        self._mirrored = n if first == 0 else min(self._mirrored, first)
        self._published = n

    def publish_mirror_image(self, rows: TwoTime) -> None:
        """Add the columns that belong to rows published since the last mirror image, so that C2 is symmetric again."""
        n = min(rows.c2.shape[1], self._published)
        if self._mirrored < n:
            self._patch("c2", rows.c2[:, :n, self._mirrored : n], (0, 0, self._mirrored))
        self._mirrored = n

    def publish_profile(self, rows: TwoTime) -> None:
        """Add age and mean intensity of the new rows."""
        intensity = (rows.frame_sum / rows.n_pixels[:, None] / self._time_binning).astype(np.float32)
        names = ("intensity", "age_s", "q_inv_angstrom")
        if "intensity" in self._children or self._found(*names):
            first = self._profiled
            self._patch("intensity", intensity[:, first:], (0, first))
            self._patch("age_s", rows.age_s[first:], (first,))
        else:
            for array in (
                ResultArray("q_inv_angstrom", rows.q_inv_angstrom, ("q",), "1/angstrom", "mean momentum transfer"),
                ResultArray("age_s", rows.age_s, ("t1",), "s", "time of each row of c2 since the start of the run"),
                ResultArray("intensity", intensity, ("q", "t1"), "counts", "mean counts per pixel"),
            ):
                self.put_array(array)
        self._profiled = rows.c2.shape[1]

    def _found(self, *names: str) -> bool:
        """Whether an earlier follower has made these children; they are then used."""
        if any(name not in self._node for name in names):
            return False
        self._children |= {name: self._node[name] for name in names}
        return True

    def put_array(self, array: ResultArray, **told: Any) -> None:
        """Write an array, in place of one of the same name."""
        name = array.name
        if name in self._node:
            self._node[name].delete(recursive=True, external_only=False)
        metadata = json_safe({"units": array.units, "description": array.description, **told})
        data = np.ascontiguousarray(array.data)
        self._children[name] = self._node.write_array(data, key=name, dims=list(array.dims), metadata=metadata)

    def put_table(self, table: ResultTable) -> None:
        """Write a table, in place of one of the same name."""
        import pandas as pd

        columns = pd.DataFrame({name: list(values) for name, values in table.columns.items()})
        if table.name not in self._children and not self._found(table.name):
            self._children[table.name] = self._node.write_table(
                columns, key=table.name, metadata={"description": table.description}
            )
        else:
            self._children[table.name].write(columns)

    def earlier_forecasts(self) -> list[KeptForecast]:
        """The forecasts that an earlier follower of this run has published, the oldest first."""
        found = list(self._read_forecasts())
        self._n_forecasts = len(found)
        return found

    def _read_forecasts(self) -> Iterator[KeptForecast]:
        names = set(self._node)
        for number in count(1):
            name = f"forecast_{number}"
            if not {name, f"{name}_times_s"} <= names:
                return
            band, told = self._node[name].read(), self._node[name].metadata
            times_s = self._node[f"{name}_times_s"].read()
            q = np.asarray(told["q_inv_angstrom"], np.float64)
            c2, lower, upper = band
            yield KeptForecast(times_s, q, c2, lower, upper, float(told["observed_until_s"]), str(told["method"]))

    def publish_forecasts(self, forecasts: Sequence[KeptForecast]) -> None:
        """Add those that are new; ``forecasts`` are all of this run."""
        for number in range(self._n_forecasts + 1, len(forecasts) + 1):
            self._add_forecast(forecasts[number - 1], number)
            self._n_forecasts = number

    def _add_forecast(self, forecast: KeptForecast, number: int) -> None:
        """Keep a forecast beside the earlier ones, as ``forecast_<number>``."""
        said = f"forecast by {forecast.method} from {forecast.observed_until_s:g} s of the run"
        band = np.stack([forecast.c2, forecast.lower, forecast.upper]).astype(np.float32)
        dims = ("value_lower_upper", "q_forecast", "time_1", "time_2")
        array = ResultArray(f"forecast_{number}", band, dims, "1", f"C2 with 95 % band, {said}")
        self.put_array(
            array,
            q_inv_angstrom=forecast.q_inv_angstrom,
            observed_until_s=forecast.observed_until_s,
            method=forecast.method,
        )
        self.put_array(ResultArray(f"forecast_{number}_times_s", forecast.times_s, ("time",), "s", "age of each row"))

    def tell(self, status: str | None = None, **news: Any) -> None:
        """Update status and other metadata."""
        told = {**news, **({} if status is None else {"status": status})}
        self._node.update_metadata(json_safe({**told, "updated_at": time.time()}), drop_revision=True)

    def drop(self) -> None:
        """Remove the record."""
        self._node.delete(recursive=True, external_only=False)

    def _patch(self, name: str, part: NDArray[Any], offset: tuple[int, ...]) -> None:
        if part.size == 0:
            return
        child = self._children[name]
        child.patch(np.ascontiguousarray(part, child.dtype), offset=offset, extend=True)


def is_old(metadata: Mapping[str, Any], keep_s: float, now: float) -> bool:
    """Whether a record has been superseded, or was left alone, for longer than ``keep_s`` seconds."""
    return now - float(metadata.get("updated_at") or metadata.get("run_time") or now) > keep_s
