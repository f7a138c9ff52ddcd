"""The state directory: private, and used by one stack at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamline_ml.errors import ServiceError
from beamline_ml.service.state import StackRecord, StateDir, write_private

RECORD = StackRecord(pid=4711, token="abc", tiled_uri="http://127.0.0.1:1", prefect_api_url="http://127.0.0.1:2/api")


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "state")
    state.create()
    return state


def test_folder_and_key_are_private(state: StateDir) -> None:
    key = state.api_key()
    assert state.root.stat().st_mode & 0o777 == 0o700
    assert (state.root / "api_key").stat().st_mode & 0o777 == 0o600
    assert key.isalnum()
    assert len(key) >= 32
    assert StateDir(state.root).api_key() == key


def test_a_private_file_is_replaced_whole(state: StateDir) -> None:
    path = state.root / "file"
    write_private(path, "first")
    write_private(path, "second")
    assert path.read_text() == "second"
    assert list(state.root.glob(".file*")) == []


def test_a_second_stack_is_told_about_the_first(state: StateDir) -> None:
    state.lock()
    state.write_record(RECORD)
    second = StateDir(state.root)
    with pytest.raises(ServiceError, match=r"process 4711, tiled http://127\.0\.0\.1:1") as refusal:
        second.lock()
    assert "BEAMLINE_ML_STATE_DIR" in refusal.value.remedy
    state.unlock()
    second.lock()
    second.unlock()


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', "[]"])
def test_a_record_cut_off_by_a_crash_counts_as_none(state: StateDir, text: str) -> None:
    assert state.read_record() is None
    state.record_file.write_text(text)
    assert state.read_record() is None
    state.write_record(RECORD)
    assert state.read_record() == RECORD
