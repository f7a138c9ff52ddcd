"""What tiled's server remembers between requests."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_ml.service.tiled_server import remembering


def test_equal_arguments_are_built_once_and_others_anew() -> None:
    build = remembering(lambda **arguments: dict(arguments))
    first = build(path="/a", scopes=["read"])
    assert build(scopes=["read"], path="/a") is first
    assert build(path="/a", scopes=["read", "write"]) == {"path": "/a", "scopes": ["read", "write"]}
    assert build(path="/a") == {"path": "/a"}


def test_what_could_not_be_built_is_tried_again() -> None:
    asked: list[Any] = []

    def build(**arguments: Any) -> str:
        asked.append(arguments)
        if len(asked) == 1:
            raise ValueError("not yet")
        return "built"

    patient = remembering(build)
    with pytest.raises(ValueError, match="not yet"):
        patient(path="/a")
    assert patient(path="/a") == "built"
    assert patient(path="/a") == "built"
    assert len(asked) == 2
