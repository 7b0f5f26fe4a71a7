"""One registration at one registrar: REGISTER, refresh, back-off, removal; without I/O. Source: RFC 3261 §10.

Refreshed at 75 % of the granted time; after a failure tried again in 60 s. The Contact follows what the
registrar saw of us (received and rport, RFC 3581), so that it is reachable through a NAT.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal, TypeAlias

from sip_ua.sip.agent import MAX_FORWARDS, Agent, SendRequest
from sip_ua.sip.authentication import is_challenge, with_credentials
from sip_ua.sip.digest import Credentials
from sip_ua.sip.headers import Headers
from sip_ua.sip.message import REASON_PHRASES, Request, Response
from sip_ua.sip.uri import NameAddr, Uri

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


class Registration:
    """Keeps one address of record registered: `start`, then `receive`, `failed` and `tick`, at last `stop`."""

    def __init__(
        self,
        agent: Agent,
        registrar: Uri,
        username: str,
        credentials: Credentials | None,
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
        self.credentials = credentials
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

    @property
    def finished(self) -> bool:
        return self.state is RegistrationState.REMOVED

    def start(self, now: float) -> list[RegistrationEffect]:
        """Register for the first time."""
        self.state = RegistrationState.TRYING
        self._send()
        return self._drain()

    def stop(self, now: float) -> list[RegistrationEffect]:
        """Remove the binding (Expires 0); `Unregistered` follows, within 64·T1 even without an answer."""
        if self.state in (RegistrationState.NEW, RegistrationState.FAILED):
            self._removed()
        elif self.state not in (RegistrationState.REMOVING, RegistrationState.REMOVED):
            self.state = RegistrationState.REMOVING
            self.deadline = now + self.agent.timers.t1_x64
            self._send()
        return self._drain()

    def tick(self, now: float) -> list[RegistrationEffect]:
        """Refresh, try again, or stop waiting for the removal."""
        if self.deadline is not None and self.deadline <= now:
            self.deadline = None
            if self.state is RegistrationState.REMOVING:
                self._removed()
            else:
                self._send()
        return self._drain()

    def receive(self, response: Response, now: float) -> list[RegistrationEffect]:
        """Take a response from the transaction layer; provisional and foreign ones are ignored."""
        request = self._pending
        if request is None or response.status < 200 or response.via.branch != request.via.branch:
            return []
        self._pending = None
        moved = self._follow(response)
        if is_challenge(response) and self._retry(request, response):
            return self._drain()
        if self.state is RegistrationState.REMOVING:
            self._removed()
        elif response.status < 300:
            self._granted(response, moved, now)
        elif response.status == 423 and (longer := _seconds(response.headers.get("Min-Expires"))):
            self._too_brief(longer, now)
        else:
            self._failed(response.status, response.reason, now)
        return self._drain()

    def failed(self, request: Request, status: Literal[408, 503], now: float) -> list[RegistrationEffect]:
        """The layer gave up on a REGISTER of ours."""
        if self._pending is not None and request.via.branch == self._pending.via.branch:
            self._pending = None
            if self.state is RegistrationState.REMOVING:
                self._removed()
            else:
                self._failed(status, REASON_PHRASES[status], now)
        return self._drain()

    def _granted(self, response: Response, moved: bool, now: float) -> None:
        self.state = RegistrationState.REGISTERED
        if moved:
            # The registrar stored an address that is not ours; tell it the right one at once.
            self._send()
            return
        granted = self._granted_expiry(response)
        self.deadline = now + REFRESH_AT * granted
        self._effects.append(Registered(str(self.contact), granted))

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

    def _too_brief(self, longer: int, now: float) -> None:
        if longer <= self._expires_s:
            self._failed(423, REASON_PHRASES[423], now)
            return
        self._expires_s = longer
        self._send()

    def _failed(self, status: int, reason: str, now: float) -> None:
        self.state = RegistrationState.FAILED
        self.deadline = now + RETRY_AFTER_S
        self._effects.append(RegistrationFailed(status, reason))

    def _removed(self) -> None:
        self.state = RegistrationState.REMOVED
        self.deadline = None
        self._pending = None
        self._effects.append(Unregistered())

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
        if self.credentials is None:
            return False
        again = with_credentials(request, response, self.credentials, self.agent, self._cseq + 1, self._tries)
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


def _seconds(value: str | None) -> int | None:
    return int(value) if value is not None and re.fullmatch(r"\d{1,9}", value) else None
