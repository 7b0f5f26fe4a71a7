"""One SIP leg between a played user agent and its call: what it tells, and that another process can take it over."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from dialbus.config import Config
from dialbus.contracts.media import REFER_LEG
from dialbus.contracts.options import SipOption
from sip_ua.call import inputs
from sip_ua.call.effects import Dial
from sip_ua.call.inputs import Input
from sip_ua.errors import BadAddress
from sip_ua.leg.sip_leg import SipLeg
from sip_ua.sip.agent import Agent, SendAck, SendRequest, SendResponse
from sip_ua.sip.credential_policy import Grant, RealmPins
from sip_ua.sip.digest import Credentials
from sip_ua.sip.message import Request, Response
from sip_ua.sip.parser import parse
from sip_ua.sip.transaction_layer import Address
from sip_ua.sip.uac import UacSession
from sip_ua.sip.uas import UasSession

Session = UacSession | UasSession


def theirs(version: int = 1, port: int = 4000, direction: str = "sendrecv") -> str:
    lines = [
        "v=0",
        f"o=- 1 {version} IN IP4 192.0.2.15",
        "s=-",
        "c=IN IP4 192.0.2.15",
        "t=0 0",
        f"m=audio {port} RTP/AVP 0",
        f"a={direction}",
        "",
    ]
    return "\r\n".join(lines)


def message(start: str, tags: tuple[str, str], cseq: str, body: str = "", **headers: str) -> Any:
    lines = [
        start,
        "Via: SIP/2.0/UDP 192.0.2.15:5060;branch=z9hG4bK" + cseq.replace(" ", ""),
        "Max-Forwards: 70",
        f"From: <sip:a@192.0.2.15>{tags[0]}",
        f"To: <sip:b@192.0.2.7>{tags[1]}",
        "Call-ID: c1",
        f"CSeq: {cseq}",
        "Contact: <sip:a@192.0.2.15>",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        *(["Content-Type: application/sdp"] if body else []),
        f"Content-Length: {len(body)}",
        "",
        body,
    ]
    return parse("\r\n".join(lines).encode())


class PlayedUser:
    """Keeps what a session sends, and lets its leg hear the rest."""

    timed_out = send_failed = False

    def __init__(self, sent: list[Any], tell: Callable[[Any], None]) -> None:
        self._sent = sent
        self._tell = tell

    def perform(self, effects: Sequence[Any]) -> None:
        for effect in effects:
            match effect:
                case SendRequest() | SendAck():
                    self._sent.append(effect.request)
                case SendResponse(response):
                    self._sent.append(response)
                case _:
                    self._tell(effect)


class PlayedUserAgent:
    """A user agent at 192.0.2.7 without a socket; its clock stands."""

    def __init__(self, now: float = 100.0) -> None:
        self.sent: list[Any] = []
        self.realms = RealmPins()
        self.session: Session | None = None
        self._user: PlayedUser | None = None
        self._now = now
        tokens = (f"tok{number}" for number in itertools.count(1))
        self._agent = Agent("192.0.2.7", 13050, new_token=lambda: next(tokens), random=lambda: 0.5)

    def now(self) -> float:
        return self._now

    def agent_towards(self, _: str) -> Agent:
        return self._agent

    def add(self, session: Session, _: str, __: str, tell: Callable[[Any], None], ___: object) -> PlayedUser:
        self.session, self._user = session, PlayedUser(self.sent, tell)
        return self._user

    def hear(self, arrived: Request | Response) -> None:
        assert self.session is not None
        assert self._user is not None
        self._user.perform(self.session.receive(arrived, self._now))


def played_user_agent(now: float = 100.0) -> Any:
    """In the place of a real one."""
    return PlayedUserAgent(now)


class Played:
    """A leg, its user agent, and what its call was told."""

    def __init__(self, state: Mapping[str, Any] | None = None, leg_id: str = "main", now: float = 100.0) -> None:
        self.ua = played_user_agent(now)
        self.told: list[Input] = []
        if state is None:
            self.leg = SipLeg(self.ua, Config(), self.told.append, "s.1", leg_id)
        else:
            self.leg = SipLeg.from_state(self.ua, Config(), self.told.append, "s.1", state, now)

    def heir(self) -> "Played":
        """The same leg in another process, whose clock shows something else."""
        stored = json.loads(json.dumps(self.leg.to_state(self.ua.now())))
        heir = Played(stored, now=5000.0)
        assert heir.leg.to_state(5000.0) == stored
        return heir


def received(source: str = "192.0.2.15", *, acknowledged: bool = True) -> Played:
    """An answered call from outside."""
    played = Played()
    played.leg.take(
        message("INVITE sip:b@192.0.2.7 SIP/2.0", (";tag=a", ""), "1 INVITE", theirs()), Address(source, 1), "b"
    )
    played.leg.describe("192.0.2.7", 20_000)
    played.leg.answer(SipOption(username="7301", password="s3cr3t", hangup_headers={"X-Bye": "1"}))
    if acknowledged:
        played.ua.hear(message("ACK sip:b@192.0.2.7 SIP/2.0", (";tag=a", ";tag=b"), "1 ACK"))
    return played


def reoffer(direction: str = "sendonly") -> Any:
    tags = (";tag=a", ";tag=b")
    return message("INVITE sip:b@192.0.2.7 SIP/2.0", tags, "2 INVITE", theirs(2, 4002, direction))


def test_what_a_leg_tells_names_the_leg_and_its_generation() -> None:
    ua = played_user_agent()
    told: list[Input] = []
    leg = SipLeg(ua, Config(), told.append, "s.1", REFER_LEG, 3)
    assert leg.plan(Dial(None, "sip:1@192.0.2.15"))
    assert repr(leg) == "<leg refer of s.1, no dialog, sdp 0>"
    leg.describe("192.0.2.7", 20_000)
    leg.invite("c1")
    assert repr(leg) == "<leg refer of s.1, calling, sdp 1>"
    ua.hear(parse(response_to(ua.sent[0], "486 Busy Here")))
    assert told == [inputs.LegRefused(486, "Busy Here", leg=REFER_LEG, generation=3)]


def response_to(request: Request, status: str, body: str = "") -> bytes:
    lines = [f"SIP/2.0 {status}", *(f"{name}: {value}" for name, value in request.headers.lines() if name in KEPT)]
    lines = [line + ";tag=theirs" if line.startswith("To:") else line for line in lines]
    lines += ["Contact: <sip:a@192.0.2.15>", *(["Content-Type: application/sdp"] if body else [])]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()


KEPT = ("Via", "From", "To", "Call-ID", "CSeq")


def test_a_leg_that_was_received_is_taken_over_with_its_versions_and_without_credentials() -> None:
    before = received()
    after = before.heir()
    for played in (before, after):
        played.told.clear()
        played.ua.hear(reoffer())
    (changed,) = after.told
    assert changed == before.told[0]
    assert isinstance(changed, inputs.MediaChanged)
    assert (changed.remote.port, changed.on_hold) == (4002, True)
    answer = after.ua.sent[-1]
    assert (answer.status, answer.body) == (200, before.ua.sent[-1].body)
    assert b"o=- " in answer.body
    assert after.ua.session.policy is None, "calls that we got prove nothing"

    after.leg.hang_up({"X-More": "2"})
    bye = after.ua.sent[-1]
    assert (bye.method, bye.headers.get("X-Bye"), bye.headers.get("X-More")) == ("BYE", "1", "2")


def test_an_acknowledgement_vouches_for_media_at_another_host() -> None:
    """Told once more, and only then; in another process as well."""
    before = received(source="198.51.100.7", acknowledged=False)
    assert before.leg.remote is not None
    assert (before.leg.remote.signalling_host, before.leg.remote.acknowledged) == ("198.51.100.7", False)
    after = before.heir()
    for played in (before, after):
        played.told.clear()
        played.ua.hear(message("ACK sip:b@192.0.2.7 SIP/2.0", (";tag=a", ";tag=b"), "1 ACK"))
        (changed,) = played.told
        assert isinstance(changed, inputs.MediaChanged)
        assert (changed.remote.address, changed.on_hold) == ("192.0.2.15", None)
        assert (changed.remote.signalling_host, changed.remote.acknowledged) == ("198.51.100.7", True)


def test_an_acknowledgement_changes_nothing_for_media_at_the_host_of_the_signalling() -> None:
    played = received(source="192.0.2.15")
    assert played.told == []
    assert played.leg.remote is not None
    assert played.leg.remote.acknowledged


def test_a_leg_that_was_placed_is_taken_over_while_it_rings() -> None:
    before = Played(leg_id=REFER_LEG)
    sip = SipOption(username="7301", password="s3cr3t")
    assert before.leg.plan(Dial("sip:7301@h", "sip:1@192.0.2.15", sip, headers={"X-A": "1"}))
    before.leg.describe("192.0.2.7", 20_000)
    before.leg.invite("c1")
    (invite,) = before.ua.sent
    before.ua.hear(parse(response_to(invite, "183 Session Progress", theirs())))
    assert before.told == [inputs.LegProgressed(before.leg.remote, leg=REFER_LEG)]

    after = before.heir()
    after.ua.hear(parse(response_to(invite, "200 OK")))

    (answered,) = after.told
    assert isinstance(answered, inputs.LegAnswered)
    assert (answered.leg, answered.sdp) == (REFER_LEG, theirs()), "what came early stands"
    assert answered.remote == before.leg.remote
    assert after.ua.session.policy.grant == Grant(Credentials("7301", "s3cr3t"), frozenset({"192.0.2.15"}))
    assert [sent.method for sent in after.ua.sent] == ["ACK"]


def test_a_leg_without_a_way_yet_is_taken_over_too() -> None:
    before = Played()
    assert not before.leg.plan(Dial(None, "sip:1@phone.example"))
    heir = before.heir()
    assert heir.leg.is_over is False
    with pytest.raises(BadAddress, match="not a Call-ID"):
        heir.leg.plan(Dial(None, "sip:1@192.0.2.15", sip_call_id="a b"))
