"""What the routes answer, as `/openapi.json` describes it (protocol section 7)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dialbus.contracts.session import CallState, CallType, Session

_ID = "s.9a0e0ce4-5ab6-4ea5-8b3b-b9ba5f1d9a0e"
_ANSWERED = "2026-03-04T09:15:27.418225+00:00"
Moment = Annotated[str | None, Field(description="RFC 3339; null when it has not come to that.")]


class Answer(BaseModel):
    """A JSON body."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ActiveCall(Answer):
    """A live session. What is not known yet is null; secrets are masked."""

    id: str
    call_type: CallType
    cs_option: Annotated[dict[str, Any] | None, Field(alias="cs.option")]
    """The same as `option`, under the name that clients of active-call know."""
    option: dict[str, Any] | None
    created_at: str
    ring_time: Moment
    start_time: Moment
    """The time of the answer."""
    answer_time: Moment
    state: CallState
    direction: Literal["inbound", "outbound"] | None
    caller: str | None
    callee: str | None


class CallList(Answer):
    """Every live session of the exchange, on whichever gateway."""

    model_config = ConfigDict(
        alias_generator=None,
        json_schema_extra={
            "example": {
                "active_calls": [
                    {
                        "id": _ID, "callType": "sip", "cs.option": {"callee": "sip:7455@10.20.0.9"},
                        "option": {"callee": "sip:7455@10.20.0.9"}, "createdAt": "2026-03-04T09:15:20.101733+00:00",
                        "ringTime": "2026-03-04T09:15:21.340000+00:00", "startTime": _ANSWERED,
                        "answerTime": _ANSWERED, "state": "up", "direction": "outbound", "caller": None,
                        "callee": "sip:7455@10.20.0.9",
                    }
                ]
            }
        },
    )  # fmt: skip

    active_calls: list[ActiveCall]


class Killed(Answer):
    """The call is being hung up."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "killed", "id": _ID}})

    status: Literal["killed"] = "killed"
    id: str


class Sent(Answer):
    """The command is queued, not done."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "sent", "id": _ID}})

    status: Literal["sent"] = "sent"
    id: str


class NotFound(Answer):
    """There is no live session of this id."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "not_found", "id": _ID}})

    status: Literal["not_found"] = "not_found"
    id: str


class Trouble(Answer):
    """It was not done, because."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "error", "error": "unknown command: dance"}})

    status: Literal["error"] = "error"
    error: str


class Denied(Answer):
    """Not this way."""

    model_config = ConfigDict(json_schema_extra={"example": {"error": "token missing or wrong"}})

    error: str


class Precached(Answer):
    """The audio is in the cache."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        json_schema_extra={
            "example": {"status": "cached", "cacheKey": "9f86d081884c7d65", "key": "9f86d081884c7d65", "bytes": 41820}
        },
    )

    status: Literal["cached", "exists"]
    cache_key: str
    key: str
    """The same as `cacheKey`."""
    bytes: int


class RecordedCall(Answer):
    """A call that left an event dump."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        json_schema_extra={
            "example": {"id": _ID, "date": "2026-03-04T09:16:02.000000+00:00", "duration": "34s", "status": "completed"}
        },
    )

    id: str
    date: str
    """RFC 3339: when the last line was written."""
    duration: Annotated[str, Field(pattern=r"^\d+s$")]
    """From the answer to the end."""
    status: Literal["completed", "unanswered", "active", "incomplete"]
    """`incomplete`: the dump ends before the call does, and the call is not live."""
    reason: str | None = None
    """Why it ended."""


class Transactions(BaseModel):
    """SIP transactions of all sip-ua workers."""

    running: int
    finished: int
    waiting_ack: int


class UserAgent(BaseModel):
    """SIP, summed over all sip-ua workers."""

    pending: int
    """Inbound calls that wait for `accept`."""
    dialogs: int
    transactions: Transactions


class HealthReport(BaseModel):
    """What the gateway says about itself and about the calls of the exchange."""

    model_config = ConfigDict(extra="allow")

    status: Literal["running", "starting", "not ready"]
    service: str
    instance: str
    version: str
    live: bool
    ready: bool
    checks: dict[str, bool]
    waiting_for: list[str] | None = None
    """While it is `starting`: services that nobody has been ready of yet."""
    uptime: str
    """RFC 3339: since when this gateway runs."""
    total: int
    """Calls since the sip-ua workers that are alive began."""
    failed: int
    """Those of them that ended without an answer."""
    runnings: int
    """Calls now."""
    sockets: int
    """Clients of this gateway."""
    useragent: UserAgent


class AmiCall(Answer):
    """A live session, in brief."""

    id: str
    call_type: CallType
    start_time: str
    ring_time: Moment
    answer_time: Moment
    duration: int
    """Seconds since the answer."""


class AmiCalls(Answer):
    """Every live session."""

    total: int
    calls: list[AmiCall]


class AmiDialog(Answer):
    """A SIP call and its parties; secrets are masked."""

    id: str
    state: CallState
    from_: Annotated[str | None, Field(alias="from")]
    to: str | None


class ShuttingDown(Answer):
    """The end has begun."""

    status: Literal["shutdown initiated"] = "shutdown initiated"
    what: Literal["dialbus", "gateway"]
    """`dialbus`: the whole ensemble that `dialbus run` started; `gateway`: this process."""


class Description(Answer):
    """A machine-readable description of an interface."""

    name: str
    kind: Literal["openapi", "asyncapi"]
    version: str
    title: str
    url: str


class Descriptions(Answer):
    """All of them."""

    descriptions: list[Description]


class IceServerEntry(Answer):
    """As browsers know it; what an entry lacks is left out."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None


def active_call(session: Session) -> ActiveCall:
    """A session as `/list` shows it."""
    return ActiveCall(
        id=session.call_id,
        call_type=session.call_type,
        cs_option=session.option,
        option=session.option,
        created_at=session.created_at,
        ring_time=session.ringing_at,
        start_time=session.answered_at,
        answer_time=session.answered_at,
        state=session.state,
        direction=session.direction,
        caller=session.caller,
        callee=session.callee,
    )
