"""One registration at one registrar: REGISTER, refresh, back-off, removal; without I/O. Source: RFC 3261 §10.

Refreshed at 75 % of the granted time; after a failure tried again in 60 s. The Contact follows what the
registrar saw of us (received and rport, RFC 3581), so that it is reachable through a NAT.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from dialbus.machine import Move, Table, dispatch, in_states
from sip_ua.sip.agent import MAX_FORWARDS, Agent, SendRequest
from sip_ua.sip.authentication import with_credentials
from sip_ua.sip.credential_policy import CredentialPolicy
from sip_ua.sip.headers import Headers
from sip_ua.sip.message import REASON_PHRASES, Request, Response, message_from_state, message_to_state
from sip_ua.sip.uri import NameAddr, Uri, parse_name_addr, parse_uri

ASSUMED_EXPIRY_S: Final = 50
"""What we take for granted when the registrar names no expiry."""
REFRESH_AT: Final = 0.75
RETRY_AFTER_S: Final = 60.0


class RegistrationState(Enum):
    """Where a registration stands."""

    NEW = "new"
    TRYING = "trying"
    REGISTERED = "registered"
    FAILED = "failed"
    REMOVING = "removing"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Registered:
    """The registrar knows us as `contact`, for `expires_s` seconds. Sent again after every refresh."""

    contact: str
    expires_s: int


@dataclass(frozen=True, slots=True)
class RegistrationFailed:
    """Refused with this status, or 408 and 503 as in a call; tried again in 60 s."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Unregistered:
    """Removed at our wish, as far as the registrar answered at all. Final."""


RegistrationEffect: TypeAlias = SendRequest | Registered | RegistrationFailed | Unregistered


class Input(Enum):
    """What a registration hears besides the registrar."""

    START = "start"
    STOP = "stop"
    DUE = "due"


@dataclass(frozen=True, slots=True)
class Granted:
    """2xx."""

    response: Response
    moved: bool
    """Whether it told that the registrar sees us elsewhere."""


@dataclass(frozen=True, slots=True)
class TooBrief:
    """423: the registrar wants at least so many seconds."""

    min_expires_s: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Any other final response, or 408 and 503 when there was none."""

    status: int
    reason: str


class Registration:
    """Keeps one address of record registered: `start`, then `receive`, `failed` and `tick`, at last `stop`."""

    def __init__(
        self,
        agent: Agent,
        registrar: Uri,
        username: str,
        policy: CredentialPolicy | None,
        *,
        call_id: str,
        contact_user: str | None = None,
        display_name: str = "",
        expires_s: int = 3600,
    ) -> None:
        """`registrar` is the Request-URI (`sip:{server}`); users are user parts as written in a URI.

        `contact_user` is whom calls for the address will name in their Request-URI; None: `username` as well.
        """
        self.agent = agent
        self.policy = policy
        self.state = RegistrationState.NEW
        self.contact = agent.contact(contact_user or username)
        self.deadline: float | None = None
        self._registrar = registrar
        self._address = NameAddr(display_name, Uri("sip", username, registrar.host, registrar.port))
        self.call_id = call_id
        self.local_tag = agent.new_token()
        self._expires_s = expires_s
        self._cseq = 0
        self._pending: Request | None = None
        self._tries = 0
        self._effects: list[RegistrationEffect] = []
        self._now = 0.0

    @property
    def finished(self) -> bool:
        return self.state is RegistrationState.REMOVED

    def __repr__(self) -> str:
        due = "" if self.deadline is None else f", due in {self.deadline - self._now:.1f} s"
        waiting = "" if self._pending is None else f", CSeq {self._cseq} waits for its answer"
        return f"<Registration of {self._address.uri} {self.state.value}{waiting}{due}>"

    def start(self, now: float) -> list[RegistrationEffect]:
        """Register for the first time."""
        return self._happen(Input.START, now)

    def stop(self, now: float) -> list[RegistrationEffect]:
        """Remove the binding (Expires 0); `Unregistered` follows, within 64·T1 even without an answer."""
        return self._happen(Input.STOP, now)

    def tick(self, now: float) -> list[RegistrationEffect]:
        """Refresh, try again, or stop waiting for the removal."""
        if self.deadline is None or self.deadline > now:
            return []
        self.deadline = None
        return self._happen(Input.DUE, now)

    def receive(self, response: Response, now: float) -> list[RegistrationEffect]:
        """Take a response from the transaction layer; provisional and foreign ones are ignored."""
        request = self._pending
        if request is None or response.status < 200 or response.via.branch != request.via.branch:
            return []
        self._pending = None
        moved = self._follow(response)
        if self._retry(request, response):
            return self._drain()
        if response.status < 300:
            return self._happen(Granted(response, moved), now)
        if response.status == 423 and (longer := _seconds(response.headers.get("Min-Expires"))):
            return self._happen(TooBrief(longer), now)
        return self._happen(Refused(response.status, response.reason), now)

    def failed(self, request: Request, status: Literal[408, 503], now: float) -> list[RegistrationEffect]:
        """The layer gave up on a REGISTER of ours."""
        if self._pending is None or request.via.branch != self._pending.via.branch:
            return []
        self._pending = None
        return self._happen(Refused(status, REASON_PHRASES[status]), now)

    def _happen(self, arrived: object, now: float) -> list[RegistrationEffect]:
        self._now = now
        dispatch(TABLE, self, arrived)
        return self._drain()

    # Handlers of the table below.

    def _begin(self, _: Input) -> None:
        self.state = RegistrationState.TRYING
        self._send()

    def _refresh(self, _: Input) -> None:
        self._send()

    def _remove(self, _: Input) -> None:
        self.state = RegistrationState.REMOVING
        self.deadline = self._now + self.agent.timers.t1_x64
        self._send()

    def _end(self, _: Input | Granted | TooBrief | Refused) -> None:
        self.state = RegistrationState.REMOVED
        self.deadline = None
        self._pending = None
        self._effects.append(Unregistered())

    def _on_granted(self, granted: Granted) -> None:
        self.state = RegistrationState.REGISTERED
        if granted.moved:
            # The registrar stored an address that is not ours; tell it the right one at once.
            self._send()
            return
        expires_s = self._granted_expiry(granted.response)
        self.deadline = self._now + REFRESH_AT * expires_s
        self._effects.append(Registered(str(self.contact), expires_s))

    def _on_too_brief(self, too_brief: TooBrief) -> None:
        if too_brief.min_expires_s <= self._expires_s:
            self._on_refused(Refused(423, REASON_PHRASES[423]))
            return
        self._expires_s = too_brief.min_expires_s
        self._send()

    def _on_refused(self, refused: Refused) -> None:
        self.state = RegistrationState.FAILED
        self.deadline = self._now + RETRY_AFTER_S
        self._effects.append(RegistrationFailed(refused.status, refused.reason))

    # For handlers.

    def _granted_expiry(self, response: Response) -> int:
        """The expiry of our Contact, else the Expires header, else the assumed one; never below 1 s."""
        ours = self.contact.uri
        for contact in response.contacts:
            same = (contact.uri.user, contact.uri.host.lower(), contact.uri.port or 5060)
            if same == (ours.user, ours.host.lower(), ours.port or 5060):
                expires = _seconds(contact.param("expires"))
                if expires is not None:
                    return max(1, expires)
        expires = _seconds(response.headers.get("Expires"))
        return ASSUMED_EXPIRY_S if expires is None else max(1, expires)

    def _follow(self, response: Response) -> bool:
        """Make the Contact what the registrar saw of us; whether that changed it."""
        via = response.via
        uri = self.contact.uri
        seen = replace(uri, host=via.received or uri.host, port=via.rport or uri.port)
        if seen == uri:
            return False
        self.contact = replace(self.contact, uri=seen)
        return True

    def _retry(self, request: Request, response: Response) -> bool:
        again = with_credentials(
            request, response, self._registrar, self.policy, self.agent, self._cseq + 1, self._tries
        )
        if again is None:
            return False
        self._cseq += 1
        self._tries += 1
        self._transmit(replace(again, headers=again.headers.with_("Contact", str(self.contact))))
        return True

    def _send(self) -> None:
        """Send a fresh REGISTER. Call-ID and tag stay, CSeq rises (RFC 3261 §10.2)."""
        self._cseq += 1
        self._tries = 0
        if self.policy is not None:
            self.policy.renew()
        expires = 0 if self.state is RegistrationState.REMOVING else self._expires_s
        items = [
            ("Via", self.agent.new_via()),
            ("Max-Forwards", MAX_FORWARDS),
            ("From", str(self._address.with_tag(self.local_tag))),
            ("To", str(self._address)),
            ("Call-ID", self.call_id),
            ("CSeq", f"{self._cseq} REGISTER"),
            ("Contact", str(self.contact)),
            ("Expires", str(expires)),
            ("User-Agent", self.agent.user_agent),
        ]
        self._transmit(Request("REGISTER", self._registrar, Headers(items)))

    def _transmit(self, request: Request) -> None:
        self._pending = request
        self._effects.append(SendRequest(request, self._registrar))

    def _drain(self) -> list[RegistrationEffect]:
        effects, self._effects = self._effects, []
        return effects

    # The state as plain data.

    def to_state(self, now: float) -> dict[str, Any]:
        """All that another process needs to go on, but credentials; times are seconds from `now`."""
        return {
            "state": self.state.value,
            "contact": str(self.contact),
            "registrar": str(self._registrar),
            "address": str(self._address),
            "call_id": self.call_id,
            "local_tag": self.local_tag,
            "expires_s": self._expires_s,
            "cseq": self._cseq,
            "pending": None if self._pending is None else message_to_state(self._pending),
            "tries": self._tries,
            "proofs": None if self.policy is None else self.policy.to_state(),
            "due_in_s": None if self.deadline is None else self.deadline - now,
        }

    @classmethod
    def from_state(
        cls, state: dict[str, Any], agent: Agent, now: float, policy: CredentialPolicy | None = None
    ) -> Registration:
        """The registration that `to_state` told; `now` is this moment, on the clock of this process."""
        one = cls.__new__(cls)
        one.agent, one.policy = agent, policy
        if policy is not None:
            policy.load(state["proofs"])
        one.state = RegistrationState(state["state"])
        one.contact, one._address = parse_name_addr(state["contact"]), parse_name_addr(state["address"])
        one._registrar = parse_uri(state["registrar"])
        one.call_id, one.local_tag = state["call_id"], state["local_tag"]
        one._expires_s, one._cseq, one._tries = state["expires_s"], state["cseq"], state["tries"]
        one.deadline = None if state["due_in_s"] is None else now + state["due_in_s"]
        one._pending, one._effects, one._now = None, [], now
        if state["pending"] is not None:
            pending = message_from_state(state["pending"])
            assert isinstance(pending, Request)
            one._pending = pending
        return one


_WANTED: Final = (RegistrationState.TRYING, RegistrationState.REGISTERED, RegistrationState.FAILED)

TABLE: Table[RegistrationState, Registration] = {
    (RegistrationState.NEW, Input.START): Move(Registration._begin, RegistrationState.TRYING),
    (RegistrationState.NEW, Input.STOP): Move(Registration._end, RegistrationState.REMOVED),
    **in_states(
        _WANTED,
        {
            Granted: Move(Registration._on_granted, RegistrationState.REGISTERED),
            TooBrief: Move(Registration._on_too_brief, RegistrationState.FAILED),
            Refused: Move(Registration._on_refused, RegistrationState.FAILED),
        },
    ),
    (RegistrationState.TRYING, Input.STOP): Move(Registration._remove, RegistrationState.REMOVING),
    (RegistrationState.REGISTERED, Input.DUE): Move(Registration._refresh),
    (RegistrationState.REGISTERED, Input.STOP): Move(Registration._remove, RegistrationState.REMOVING),
    (RegistrationState.FAILED, Input.DUE): Move(Registration._refresh),
    (RegistrationState.FAILED, Input.STOP): Move(Registration._end, RegistrationState.REMOVED),
    **in_states(
        (RegistrationState.REMOVING,),
        {
            Granted: Move(Registration._end, RegistrationState.REMOVED),
            TooBrief: Move(Registration._end, RegistrationState.REMOVED),
            Refused: Move(Registration._end, RegistrationState.REMOVED),
            Input.DUE: Move(Registration._end, RegistrationState.REMOVED),
        },
    ),
}


def _seconds(value: str | None) -> int | None:
    return int(value) if value is not None and re.fullmatch(r"\d{1,9}", value) else None
