"""A small public mirror on a loopback socket, and the arrays of a few invented materials."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from beamline_ml.service.phonon_data import arrays_from_originals


def original(name: str, atoms: Atoms, centre_inv_cm: float) -> bytes:
    """A file like the public ones: structure, and a density of states with acoustic and optical parts."""
    frequency = np.arange(-3.0, centre_inv_cm * 1.6)
    acoustic = np.where((frequency > 0) & (frequency < 0.6 * centre_inv_cm), np.clip(frequency, 0, None) ** 2, 0.0)
    optical = np.exp(-((frequency - centre_inv_cm) ** 2) / (2.0 * (0.08 * centre_inv_cm) ** 2))
    dos = acoustic / acoustic.sum() + (len(atoms) - 1) * optical / optical.sum()
    buffer = io.BytesIO()
    write(buffer, atoms, format="cif")
    content = {
        "phonon": {"ph_dos": list(dos), "dos_frequencies": list(frequency)},
        "metadata": {
            "material_id": name,
            "formula": atoms.get_chemical_formula("metal"),
            "structure": buffer.getvalue().decode(),
        },
    }
    return json.dumps(content).encode()


def originals() -> dict[str, bytes]:
    """Twelve rock-salt and zincblende crystals; the lighter and the tighter, the higher their frequencies."""
    crystals = [("NaCl", 5.64), ("KCl", 6.29), ("MgO", 4.21), ("LiF", 4.03), ("CaO", 4.81), ("NaF", 4.63)]
    found = {}
    for index, (formula, a) in enumerate(crystals):
        for kind, (structure, scale) in enumerate({"rocksalt": 1.0, "zincblende": 1.08}.items()):
            atoms = bulk(formula, structure, a=a * scale)
            centre = 5000.0 / np.sqrt(atoms.get_masses().min()) / a / scale
            name = f"mp-{100 + 10 * index + kind}"
            found[name + ".json"] = original(name, atoms, centre)
    return found


@pytest.fixture(scope="session")
def small_arrays() -> dict[str, Any]:
    """Arrays of a data file with nine training and three held-out materials."""
    contents = [content for _, content in sorted(originals().items())]
    return arrays_from_originals((row, int(row % 4 == 3), content) for row, content in enumerate(contents))


@dataclass
class Mirror:
    """What the mirror serves and what was asked of it."""

    base: str
    content: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    fail_after: int | None = None
    """Answer 404 to everything after so many requests."""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    served: Mirror

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            over = served.fail_after is not None and len(served.asked) > served.fail_after
            body = None if over else served.content.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Mirror(f"http://127.0.0.1:{server.server_address[1]}", {})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()
