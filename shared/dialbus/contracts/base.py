"""What every message on the bus has in common: its subject, its JSON and its reply.

One function builds subject tokens and nobody else does: `token()`. Contracts are frozen, ignore unknown
fields and give new fields defaults, so that old and new workers can share a bus during a roll-out.
"""

from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

CallId = Annotated[str, Field(min_length=1, max_length=512)]
U32 = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
U64 = Annotated[int, Field(ge=0, le=0xFFFFFFFFFFFFFFFF)]

_LITERAL = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def token(call_id: str) -> str:
    """One subject token (and KV key) for a session id; `from_token` reverses it.

    Ids made of `A-Z a-z 0-9 _ -` stand for themselves; every other UTF-8 byte becomes `=XX`. Raises ValueError
    for an empty id, which no subject can carry.
    """
    if not call_id:
        raise ValueError("a session id is not empty")
    return "".join(chr(byte) if byte in _LITERAL else f"={byte:02X}" for byte in call_id.encode())


def from_token(text: str) -> str:
    """The session id that `token` escaped. Raises ValueError for text that `token` never writes."""
    plain = bytearray()
    position = 0
    while position < len(text):
        if text[position] == "=":
            plain.append(int(text[position + 1 : position + 3], 16))
            position += 3
        else:
            plain.extend(text[position].encode())
            position += 1
    call_id = plain.decode()
    if token(call_id) != text:
        raise ValueError(f"not a subject token: {text!r}")
    return call_id


class Contract(BaseModel):
    """A message between services, as JSON on the subject that its template and fields give."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    SUBJECT: ClassVar[str]
    """Template; `{call}` is the escaped `call_id`, other braces name fields that hold one token each."""

    @classmethod
    def pattern(cls, call_id: str | None = None, **fields: str) -> str:
        """The subject to subscribe to; what is not given becomes the wildcard `*`."""
        values = {name: fields.get(name, "*") for name in _placeholders(cls.SUBJECT)}
        if "call" in values and call_id is not None:
            values["call"] = token(call_id)
        return cls.SUBJECT.format(**values)

    @property
    def subject(self) -> str:
        """The subject that this message is sent on."""
        values = {
            name: token(self.call_id) if name == "call" else str(getattr(self, name))  # type: ignore[attr-defined]  # of a contract with {call}
            for name in _placeholders(self.SUBJECT)
        }
        return self.SUBJECT.format(**values)

    def to_bytes(self) -> bytes:
        """UTF-8 JSON of what was set: defaults are the reader's, so that "only what was sent" survives the bus."""
        return self.model_dump_json(by_alias=True, exclude_none=True, exclude_unset=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The message that `to_bytes` wrote. Raises pydantic.ValidationError when it does not fit the schema."""
        return cls.model_validate_json(data)


R = TypeVar("R", bound=Contract)


class Request(Contract, Generic[R]):
    """A message that expects an answer: taken (with an `R`) or refused, because."""

    @classmethod
    def reply_type(cls) -> type[R]:
        """The contract of the answer, from the `Request[…]` that the class is derived from."""
        for base in cls.__mro__:
            arguments = getattr(base, "__pydantic_generic_metadata__", {}).get("args")
            if arguments:
                reply: type[R] = arguments[0]
                return reply
        raise TypeError(f"{cls.__name__} names no reply")


class Taken(Contract):
    """The plain answer to a request: it will be done."""

    SUBJECT: ClassVar[str] = "_reply.taken"


class Refusal(Contract):
    """The other answer to a request. `code` follows HTTP: 400 bad, 404 unknown, 409 wrong state, 503 no room."""

    SUBJECT: ClassVar[str] = "_reply.refused"

    code: int
    reason: str


class ClientJson(BaseModel):
    """JSON as clients speak it: camelCase, unknown fields ignored, `null` is absent, numbers may be strings.

    Source: protocol section 0.2.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        coerce_numbers_to_str=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data

    def model_post_init(self, context: Any, /) -> None:
        """The tag that tells commands and events apart counts as set, whether or not the caller spelled it out."""
        self.model_fields_set.update(_TAGS & type(self).model_fields.keys())

    def to_json(self) -> str:
        """Compact JSON, absent optional values left out."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    def sent_json(self) -> str:
        """Compact JSON of what was set, as it travels on the bus."""
        return self.model_dump_json(by_alias=True, exclude_none=True, exclude_unset=True)

    def to_fields(self) -> dict[str, Any]:
        """The same as a JSON object still in one's hands."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


_TAGS = frozenset({"command", "event"})


def _placeholders(template: str) -> list[str]:
    return [part[1:-1] for part in template.split(".") if part.startswith("{")]
