"""EPICS records with areaDetector's names and types, made from the very class that will talk to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ophyd_async.core import Device, Signal, SignalRW, StaticPathProvider, UUIDFilenameProvider
from ophyd_async.epics import adcore, adsimdetector
from softioc import builder

OnPut = Callable[[str, Any], Awaitable[None]]

BUSY = ("cam1:Acquire", "HDF1:Capture")
"""Put to start and put again to stop: a record that waits for its callback would keep the second put waiting."""
_PATH_LENGTH = 512
_PRECISION = 6


@dataclass(frozen=True)
class _Names:
    """PV names of one signal, and what it holds."""

    read: str
    write: str | None
    datatype: type


def _signals(device: Device) -> Iterator[_Names]:
    for _, child in device.children():
        if isinstance(child, Signal):
            backend = child._connector.backend
            if hasattr(backend, "read_pv"):
                write = backend.write_pv if isinstance(child, SignalRW) else None
                yield _Names(backend.read_pv, write, backend.datatype)
        else:
            yield from _signals(child)


def sim_detector(prefix: str) -> adsimdetector.SimDetector:
    """The client class as a profile makes it, not connected to anything."""
    nowhere = StaticPathProvider(UUIDFilenameProvider(), Path("/"))
    return adsimdetector.SimDetector(prefix, adcore.ADWriterFactory.hdf(nowhere), name="det")


class Records:
    """All records of one detector, by their names without prefix.

    Parameters
    ----------
    prefix
        EPICS prefix, ending with a colon.
    initial
        Values at start, by name.
    on_put
        Called with name and value after a client's put; the put completes when it returns, except that of
        :data:`BUSY` records.
    """

    def __init__(self, prefix: str, initial: Mapping[str, Any], on_put: OnPut) -> None:
        self._initial = initial
        self._on_put = on_put
        self._records: dict[str, Any] = {}
        self._settings: set[str] = set()
        self._choices: dict[str, list[str]] = {}
        builder.SetDeviceName(prefix.removesuffix(":"))
        for names in _signals(sim_detector(prefix)):
            if names.write is not None:
                self._make(names.write.removeprefix(prefix), names.datatype, is_output=True)
            self._make(names.read.removeprefix(prefix), names.datatype, is_output=False)
        # The class does not read these two; a person does.
        self._records["HDF1:WriteStatus"] = builder.boolIn("HDF1:WriteStatus", ZNAM="Write OK", ONAM="Write error")
        self._make("HDF1:WriteMessage", str, is_output=False)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, name: str) -> Any:
        """Value; choices of a menu by their text."""
        value = self._records[name].get()
        return self._choices[name][value] if name in self._choices else value

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a read-back, or both a setting and its read-back, without calling ``on_put``."""
        value = self._choices[name].index(value) if name in self._choices else value
        record = self._records[name]
        if name in self._settings:
            record.set(value, process=False)
            self._read_back(name, value)
        else:
            record.set(value)

    def _read_back(self, name: str, value: Any) -> None:
        if f"{name}_RBV" in self._records:
            self._records[f"{name}_RBV"].set(value)

    def _make(self, name: str, datatype: type, is_output: bool) -> None:
        if name in self._records:
            return
        made_for, choices, fields = _recipe(datatype, is_output)
        if choices:
            self._choices[name] = choices
        if (initial := self._initial.get(name, self._initial.get(name.removesuffix("_RBV")))) is not None:
            fields["initial_value"] = choices.index(initial) if choices else initial
        if is_output:
            self._settings.add(name)
            fields |= {"on_update": self._told(name), "always_update": True, "blocking": name not in BUSY}
        self._records[name] = made_for(name, *choices, **fields)

    def _told(self, name: str) -> Callable[[Any], Awaitable[None]]:
        async def told(value: Any) -> None:
            if name not in BUSY:
                self._read_back(name, value)
            await self._on_put(name, self[name])

        return told


def _recipe(datatype: type, is_output: bool) -> tuple[Callable[..., Any], list[str], dict[str, Any]]:
    """What makes a record for values of a type, the texts of its menu, and its fields."""
    zero = {"initial_value": 0}
    recipes: dict[type, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
        float: (builder.aIn, builder.aOut, {**zero, "PREC": _PRECISION}),
        int: (builder.longIn, builder.longOut, zero),
        bool: (builder.boolIn, builder.boolOut, {**zero, "ZNAM": "No", "ONAM": "Yes"}),
        str: (builder.longStringIn, builder.longStringOut, {"initial_value": "", "length": _PATH_LENGTH}),
    }
    if datatype in recipes:
        reading, writing, fields = recipes[datatype]
        return writing if is_output else reading, [], dict(fields)
    return builder.mbbOut if is_output else builder.mbbIn, [choice.value for choice in datatype], dict(zero)
