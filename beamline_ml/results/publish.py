"""Write a result into tiled so that it is seen whole or not at all, once, whoever else tries the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
from tiled.client.container import Container
from tiled.client.utils import ClientError
from tiled.queries import Key

from beamline_ml.errors import ResultError
from beamline_ml.results.content import ResultArray, ResultContent, ResultTable
from beamline_ml.results.writers import ACTIVE, abandoned, this_writer

STALE_S = 300.0
"""A publication of another machine that adds nothing for so long is taken for dead; a dynamics fit takes less."""

_MOST_RIVALS = 50
"""Entries with one identity that are looked at; asking for the first few takes one request, for all of them two."""

_POLL_S = 0.2
_CONCURRENT_WRITES = 4
_CONFLICT = 409
_NOT_FOUND = 404
_SERVER_ERROR = 500
_LAST_SUFFIX = "_{identity}_{attempt}"
_SUFFIXES = ("", "_{identity}", _LAST_SUFFIX)


def find_complete(results: Container, result_id: str) -> Any | None:
    """The complete result with this identity, if there is one."""
    return _earliest(_having("complete", _rivals(results, result_id)))


def publish_result(results: Container, content: ResultContent, stale_s: float = STALE_S) -> Any:
    """Publish a result and return its client.

    Nothing is marked ``complete`` before all of it is there. Publishing the same identity again returns what is there
    already; a publication that died half way is removed; of two that race, one stays.

    Parameters
    ----------
    results
        Container ``results/``.
    content
        What to publish.
    stale_s
        How long another machine's unfinished publication of the same result may stand still before it is removed.

    Raises
    ------
    ResultError
        When tiled does not take it; nothing half-published stays behind then.
    """
    with drafted(results, content, stale_s) as draft:
        return draft.complete(content)


@contextmanager
def drafted(results: Container, known: ResultContent, stale_s: float = STALE_S) -> Iterator[Draft]:
    """Begin to publish what is known of a result while the rest of it is still being computed.

    A block that ends without :meth:`Draft.complete`, by an error or otherwise, leaves nothing behind.

    Parameters
    ----------
    results, stale_s
        As for :func:`publish_result`.
    known
        Identity, key and metadata, and the arrays and tables that will not change any more.
    """
    existing = _settle(results, known.result_id, stale_s)
    if existing is not None:
        yield Draft(results, existing, None, "")
        return
    token = uuid4().hex
    with ACTIVE.holding(token), ThreadPoolExecutor(_CONCURRENT_WRITES) as pool:
        draft = Draft(results, _claim(results, known, token, _SUFFIXES), pool, token)
        try:
            draft.write(known)
            yield draft
        except BaseException as error:
            draft.discard()
            if isinstance(error, ClientError):
                raise ResultError(
                    f"tiled did not take the result {known.key}: {error}.", "Check its log, then reprocess the run."
                ) from error
            raise
        if draft.existing is None:
            draft.discard()


class Draft:
    """A result that is being written.

    Parameters
    ----------
    results
        Container ``results/``.
    node
        The result's container.
    pool
        Threads that write; None when the result is complete already.
    token
        Tells this attempt from all others.
    """

    def __init__(self, results: Container, node: Any, pool: ThreadPoolExecutor | None, token: str) -> None:
        self._results = results
        self._node = node
        self._pool = pool
        self._token = token
        self._writes: dict[str, Future[None]] = {}

    @property
    def existing(self) -> Any | None:
        """The complete result, once there is one: there is nothing left to compute."""
        return self._node if self._pool is None else None

    def write(self, content: ResultContent) -> None:
        """Begin to write the arrays and tables that are not being written yet."""
        assert self._pool is not None
        for array in _largest_first(content.arrays):
            if array.name not in self._writes:
                self._writes[array.name] = self._pool.submit(_write_array, self._node, array)
        for table in content.tables:
            if table.name not in self._writes:
                self._writes[table.name] = self._pool.submit(_write_table, self._node, table)

    def complete(self, content: ResultContent) -> Any:
        """Write what is still missing, make the result visible, and return its client."""
        if self.existing is not None:
            return self.existing
        began = time.monotonic()
        self.write(content)
        self._see_written(content)
        self._node.update_metadata({**content.metadata, **_completed(content, began)}, drop_revision=True)
        self._pool = None
        _delete_failures(self._results, content)
        return _keep_one(self._results, content.result_id)

    def _see_written(self, content: ResultContent) -> None:
        """Wait until all is written.

        A tiled that was killed while it created an array may have left a directory that its catalogue does not know,
        and every later attempt to create an array there fails. Then the result goes to another place.
        """
        try:
            self._wait_for_writes()
        except httpx.HTTPStatusError as error:
            if error.response.status_code < _SERVER_ERROR:
                raise
            self._move(content)
            self._wait_for_writes()

    def _wait_for_writes(self) -> None:
        for write in self._writes.values():
            write.result()

    def _move(self, content: ResultContent) -> None:
        """Begin again under a key that nobody has used."""
        self._end_writes()
        before, self._node = self._node, _claim(self._results, content, self._token, (_LAST_SUFFIX,))
        _delete(before)
        self._writes = {}
        self.write(content)

    def _end_writes(self) -> None:
        for write in self._writes.values():
            write.cancel()
        wait(self._writes.values())

    def discard(self) -> None:
        """Remove what was written."""
        self._end_writes()
        self._pool = None
        _delete(self._node)


def _completed(content: ResultContent, began: float) -> dict[str, Any]:
    """The news that make a result visible, and how long its publication took after all was computed."""
    took_s = round(time.monotonic() - began, 3)
    timings_s = {**content.metadata.get("timings_s", {}), "publish": took_s}
    return {"status": "complete", "published_at": time.time(), "timings_s": timings_s}


def _rivals(results: Container, result_id: str) -> list[Any]:
    """Entries with one identity, whatever became of them, in one request."""
    return list(results.search(Key("result_id") == result_id).values().head(_MOST_RIVALS))


def _having(status: str, nodes: list[Any]) -> list[Any]:
    return [node for node in nodes if node.metadata.get("status") == status]


def _earliest(nodes: list[Any]) -> Any | None:
    return min(nodes, key=_age_rank, default=None)


def _age_rank(node: Any) -> tuple[float, str]:
    return float(node.metadata.get("published_at") or 0.0), str(node.item["id"])


def _settle(results: Container, result_id: str, stale_s: float) -> Any | None:
    """Wait for others that write the same result; remove those that died; return a complete one."""
    progress: dict[str, tuple[int, float]] = {}
    while True:
        rivals = _rivals(results, result_id)
        complete = _earliest(_having("complete", rivals))
        if complete is not None:
            return complete
        waiting = [node for node in _having("writing", rivals) if not _removed(node)]
        for node in waiting:
            if _stands_still(node, progress, stale_s):
                _delete(node)
        if not waiting:
            return None
        time.sleep(_POLL_S)


def _removed(node: Any) -> bool:
    if not abandoned(node.metadata.get("writer", {})):
        return False
    _delete(node)
    return True


def _stands_still(node: Any, progress: dict[str, tuple[int, float]], stale_s: float) -> bool:
    try:
        written = len(list(node))
    except (ClientError, KeyError):
        return False
    token = str(node.metadata.get("writer", {}).get("token"))
    before, since = progress.get(token, (-1, 0.0))
    if written != before:
        progress[token] = (written, time.monotonic())
        return False
    return time.monotonic() - since > stale_s


def _claim(results: Container, content: ResultContent, token: str, suffixes: tuple[str, ...]) -> Any:
    """Create the container under the content's key with the first of the suffixes that is free."""
    metadata = {**content.metadata, "status": "writing", "writer": this_writer(token)}
    for suffix in suffixes:
        key = content.key + suffix.format(identity=content.result_id[:6], attempt=uuid4().hex[:4])
        try:
            return results.create_container(key=key, metadata=metadata, specs=[content.spec])
        except ClientError as error:
            if error.response.status_code != _CONFLICT:
                raise ResultError(
                    f"tiled did not take the result {content.key}: {error}.", "Check that results/ is writable."
                ) from error
    raise ResultError(f"No free key for the result {content.key}.", "Look into results/ and remove what is not needed.")


def _largest_first(arrays: tuple[ResultArray, ...]) -> list[ResultArray]:
    return sorted(arrays, key=lambda array: -array.data.nbytes)


def _write_array(node: Any, array: ResultArray) -> None:
    metadata = {"units": array.units, "description": array.description}
    node.write_array(array.data, key=array.name, dims=list(array.dims), metadata=metadata)


def _write_table(node: Any, table: ResultTable) -> None:
    columns = {name: list(values) for name, values in table.columns.items()}
    node.write_table(columns, key=table.name, metadata={"description": table.description})


def _keep_one(results: Container, result_id: str) -> Any:
    """When two publications finished at the same time, both see both here, and both keep the earlier one."""
    first, *others = sorted(_having("complete", _rivals(results, result_id)), key=_age_rank)
    for node in others:
        _delete(node)
    return first


def _delete_failures(results: Container, content: ResultContent) -> None:
    """Remove what earlier attempts at the same request left; a failure under other settings stays."""
    failed = results.search(Key("request_id") == content.metadata["request_id"]).search(Key("status") == "failed")
    for node in failed.values().head(_MOST_RIVALS):
        _delete(node)


def _delete(node: Any) -> None:
    try:
        node.delete(recursive=True, external_only=False)
    except ClientError as error:
        if error.response.status_code != _NOT_FOUND:
            raise ResultError(
                f"tiled did not remove the unfinished result {node.item['id']}: {error}.", "Remove it by hand."
            ) from error
