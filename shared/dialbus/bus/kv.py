"""Key-value buckets, whose values change by compare-and-set."""

import asyncio

from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import (
    BadRequestError,
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NotFoundError,
)
from nats.js.kv import KeyValue

from dialbus.bus.connection import Connection
from dialbus.bus.errors import Conflict, translated
from dialbus.contracts.base import token

_AT_ONCE = 64
"""Values of a bucket that are asked for together."""


class Bucket:
    """A key-value bucket whose values change by compare-and-set. Every method raises BusError when NATS can't."""

    def __init__(self, store: KeyValue, js: JetStreamContext, name: str) -> None:
        self._store = store
        self._js = js
        self._name = name

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """The value and its revision, or None."""
        with translated():
            try:
                entry = await self._store.get(token(key))
            except KeyNotFoundError:
                return None
        return entry.value or b"", int(entry.revision or 0)

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that does not exist; its revision. Raises Conflict when it does."""
        with translated():
            try:
                return int(await self._store.create(token(key), value))
            except (KeyWrongLastSequenceError, BadRequestError):
                raise Conflict(key) from None

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Replace the value that has this revision; the new revision. Raises Conflict when it has moved on."""
        with translated():
            try:
                return int(await self._store.update(token(key), value, last=revision))
            except (KeyWrongLastSequenceError, BadRequestError):
                raise Conflict(key) from None

    async def delete(self, key: str) -> None:
        """Forget the key without a trace. Forgetting twice is fine.

        Not by nats-py's `purge`: its marker would stay in the bucket for ever, one for every call there has been.
        """
        with translated():
            await self._js.purge_stream(f"KV_{self._name}", subject=f"$KV.{self._name}.{token(key)}")

    async def values(self) -> list[bytes]:
        """Every value, in no order.

        The stream is asked for its keys. nats-py's `keys` watches instead, and may take a bucket whose values are still
        on their way for an empty one.
        """
        prefix = f"$KV.{self._name}."
        with translated():
            info = await self._js.stream_info(f"KV_{self._name}", subjects_filter=f"{prefix}>")
            keys = [subject.removeprefix(prefix) for subject in info.state.subjects or {}]
            found: list[bytes | None] = []
            for start in range(0, len(keys), _AT_ONCE):
                found += await asyncio.gather(*(self._entry(key) for key in keys[start : start + _AT_ONCE]))
        return [value for value in found if value is not None]

    async def _entry(self, key: str) -> bytes | None:
        try:
            return (await self._store.get(key)).value or b""
        except KeyNotFoundError:
            return None


class Buckets(Connection):
    """State that others need."""

    async def bucket(self, name: str) -> Bucket:
        """A key-value bucket, made if absent."""
        try:
            store = await self._js.key_value(name)
        except (BucketNotFoundError, NotFoundError):
            store = await self._js.create_key_value(
                KeyValueConfig(bucket=name, storage=StorageType.FILE, history=1, replicas=self._settings.replicas)
            )
        return Bucket(store, self._js, name)
