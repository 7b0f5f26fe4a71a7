"""The shell: takes records of calls from the work queue and keeps them where `[callrecord]` says (protocol 9.4).

A record is written or sent at least once. Whatever can't be sent in the end lies in a local file below `root`.
"""

import asyncio
import os
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import httpx
from prometheus_client import Counter

from dialbus import __version__, telemetry
from dialbus.bus import Later
from dialbus.config import CallRecordConfig
from dialbus.contracts.records import WriteRecord
from dialbus.dumps import last_hangup
from dialbus.privatefiles import open_private
from dialbus.tasks import cancel_all
from webhook_dispatcher.records import (
    FIRST_PAUSE_S,
    KeepHere,
    Media,
    TryAgain,
    Verdict,
    age_s,
    answered,
    local_path,
    media_of,
    not_answered,
)

log = telemetry.get_logger()

AT_ONCE = 16
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_FINISH_S = 3.0
"""How long a record in hand may still take once the service stops."""
_DUMP_ENDS_S = 3.0
"""How long the dump's last line is waited for: the gateway writes it while the record is on its way."""
_LOOK_S = 0.1
_MAX_REMEMBERED = 4096
_NOT_CONFIGURABLE = frozenset({"content-type", "content-length", "transfer-encoding", "host"})
"""Headers that belong to the multipart body and the connection."""

_records = Counter("dialbus_call_records", "Records of calls, by what became of them", ["outcome"])


class RecordWriter:
    """Keeps records as one `[callrecord]` says.

    Recordings and dumps are sent only from below `recorder_path`, unless absolute paths are allowed.
    """

    def __init__(
        self,
        config: CallRecordConfig,
        client: httpx.AsyncClient,
        *,
        recorder_path: Path,
        absolute_paths: bool,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._client = client
        self._recorder_path = recorder_path
        self._absolute_paths = absolute_paths
        self._jitter = jitter
        self._in_hand = 0
        # Records done: one that comes again, because its acknowledgement was lost, is not sent again.
        self._done: OrderedDict[tuple[str, str], None] = OrderedDict()

    @property
    def in_hand(self) -> int:
        """Records being written or sent now."""
        return self._in_hand

    async def write(self, item: WriteRecord) -> None:
        """Keep one record. Raises Later when it shall come back; cancelled, it takes a few seconds more to finish."""
        with telemetry.bound(call_id=item.call_id):
            self._in_hand += 1
            working = asyncio.create_task(self._keep(item), name=f"record {item.call_id}")
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None:
                    task.uncancel()
                await asyncio.wait([working], timeout=_FINISH_S)
                if not working.done():
                    await cancel_all([working])
                    raise Later(FIRST_PAUSE_S) from None
                working.result()
            finally:
                self._in_hand -= 1

    async def _keep(self, item: WriteRecord) -> None:
        key = (item.call_id, item.record.end_time)
        if key in self._done:
            return
        if self._config.type == "local":
            await self._write_here(item, "written")
        else:
            await self._send(item)
        self._done[key] = None
        while len(self._done) > _MAX_REMEMBERED:
            self._done.popitem(last=False)

    async def _write_here(self, item: WriteRecord, outcome: str) -> None:
        path = local_path(self._config.root, item.call_id, item.record)
        try:
            await asyncio.to_thread(_write_atomically, path, item.record.to_json() + "\n")
        except OSError as error:
            log.error("record.not_written", path=str(path), error=error.strerror or str(error))
            age = min(age_s(item.record, datetime.now(UTC)), 60.0)
            raise Later(max(FIRST_PAUSE_S, age)) from None
        _records.labels(outcome).inc()
        log.info("record.written", path=str(path))

    # -- HTTP -------------------------------------------------------------------------------------

    async def _send(self, item: WriteRecord) -> None:
        media = list(media_of(item.record)) if self._config.with_media else []
        ended = True
        if any(part.is_dump for part in media):
            ended = await _has_ended(Path(next(part.path for part in media if part.is_dump)))
        files = await asyncio.to_thread(self._files, media)
        match await self._post(item, files):
            case TryAgain(delay_s):
                raise Later(delay_s)
            case KeepHere(reason):
                log.error("record.not_sent", reason=reason, kept=str(self._config.root))
                await self._write_here(item, "kept")
                return
        _records.labels("sent").inc()
        log.info("record.sent", files=len(files))
        if not self._config.keep_media_copy:
            for part, path in files:
                if ended or not part.is_dump:
                    await asyncio.to_thread(_forget, path)

    async def _post(self, item: WriteRecord, files: list[tuple[Media, Path]]) -> Verdict:
        age, jitter = age_s(item.record, datetime.now(UTC)), self._jitter()
        with ExitStack() as stack:
            parts: list[tuple[str, Any]] = [
                ("calllog.json", (None, item.record.to_json().encode(), "text/plain; charset=utf-8"))
            ]
            for part, path in files:
                try:
                    file: IO[bytes] = stack.enter_context(await asyncio.to_thread(path.open, "rb"))
                except OSError as error:
                    log.warning("record.media_left_out", path=str(path), error=error.strerror or str(error))
                    continue
                content: Any = await asyncio.to_thread(file.read) if part.is_dump else file  # a dump may still grow
                parts.append((part.part, (path.name, content, part.content_type)))
            try:
                request = self._client.build_request(
                    "POST", self._config.url or "", files=parts, headers=self._headers(), timeout=_TIMEOUT
                )
                response = await self._client.send(request, stream=True)
                await response.aclose()  # what it says does not matter
            except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL, ValueError) as error:
                return not_answered(f"not sendable: {type(error).__name__}", age, jitter, retry=False)
            except httpx.HTTPError as error:
                log.warning("record.attempt_failed", reason=type(error).__name__, age_s=round(age))
                return not_answered(f"the target does not answer: {type(error).__name__}", age, jitter)
        if not response.is_success:
            log.warning("record.attempt_failed", status=response.status_code, age_s=round(age))
        return answered(response.status_code, age, jitter)

    def _headers(self) -> list[tuple[str, str]]:
        configured = [(name, value) for name, value in self._config.headers if name.lower() not in _NOT_CONFIGURABLE]
        if any(name.lower() == "user-agent" for name, _ in configured):
            return configured
        return [("User-Agent", f"dialbus/{__version__}"), *configured]

    # -- files ------------------------------------------------------------------------------------

    def _files(self, media: list[Media]) -> list[tuple[Media, Path]]:
        """Those of the named files that are there and may be sent."""
        found = []
        for part in media:
            path = Path(part.path).resolve()
            if not self._absolute_paths and not path.is_relative_to(self._recorder_path.resolve()):
                log.warning("record.media_left_out", path=part.path, error="not below recorder_path")
            elif not path.is_file():
                log.warning("record.media_left_out", path=part.path, error="no such file")
            else:
                found.append((part, path))
        return found


async def _has_ended(dump: Path) -> bool:
    """Wait, for a moment, until an event dump has its last line; whether it has."""
    try:
        async with asyncio.timeout(_DUMP_ENDS_S):
            while await asyncio.to_thread(last_hangup, dump) is None:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        return False
    return True


def _write_atomically(path: Path, content: str) -> None:
    """The whole file or none of it, also when the machine goes down."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    descriptor = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("record.media_not_deleted", path=str(path), error=error.strerror or str(error))
