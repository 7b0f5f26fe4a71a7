"""Calls as stories: what goes over the wire and what the owner learns, without a network or a clock."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sip_ua.sip.agent import Agent, LocalProtocolError, SendAck, SendRequest, SendResponse
from sip_ua.sip.credential_policy import CredentialPolicy, Grant
from sip_ua.sip.dialog import Dialog
from sip_ua.sip.digest import Credentials
from sip_ua.sip.dtmf import parse_dtmf
from sip_ua.sip.extensions import custom, reason_text, reason_value
from sip_ua.sip.headers import Headers
from sip_ua.sip.identity import server_key
from sip_ua.sip.invite_session import InviteSession
from sip_ua.sip.message import Request, Response, response_to
from sip_ua.sip.parser import parse
from sip_ua.sip.session_effects import (
    AckMissing,
    Acknowledged,
    Answered,
    Cancelled,
    DtmfReceived,
    InfoReceived,
    MessageReceived,
    Offered,
    Progress,
    Refused,
    RemoteHangUp,
    ReofferAnswered,
    Reoffered,
    ReofferRefused,
    ReofferWithdrawn,
    RequestAnswered,
    SessionEffect,
    SessionExpired,
    TransferRequested,
)
from sip_ua.sip.uac import UacSession
from sip_ua.sip.uas import UasSession, answer_outside_dialog
from sip_ua.sip.uri import parse_name_addr
from tests.peers.digest import proves

OFFER, ANSWER, EARLY, HOLD = b"v=0 offer", b"v=0 answer", b"v=0 early", b"v=0 hold"
SDP = ("Content-Type", "application/sdp")
PHONE = ("Contact", "<sip:bob@198.51.100.4:5070>")
CHALLENGE = ("WWW-Authenticate", 'Digest realm="pbx", nonce="n1", qop="auth", algorithm=SHA-256')
STALE = ("WWW-Authenticate", 'Digest realm="pbx", nonce="n2", qop="auth", algorithm=SHA-256, stale=true')
SECRET = Credentials("7301", "s3cr3t")


def agent() -> Agent:
    tokens = (f"tok{number}" for number in itertools.count(1))
    return Agent("192.0.2.20", 13050, new_token=lambda: next(tokens), random=lambda: 0.5)


def wire(effects: Sequence[SessionEffect]) -> list[str]:
    """What goes out, in order: methods of requests, status and method of responses."""
    lines = []
    for effect in effects:
        match effect:
            case SendRequest(request, _) | SendAck(request, _):
                lines.append(request.method)
            case SendResponse(response):
                lines.append(f"{response.status} {response.cseq.method}")
    return lines


def told(effects: Sequence[SessionEffect]) -> list[SessionEffect]:
    """What the owner learns."""
    return [effect for effect in effects if not isinstance(effect, SendRequest | SendAck | SendResponse)]


def request_in(effects: Sequence[SessionEffect], method: str) -> Request:
    """The last request of this method that goes out."""
    sent = [effect.request for effect in effects if isinstance(effect, SendRequest | SendAck)]
    return [request for request in sent if request.method == method][-1]


def response_in(effects: Sequence[SessionEffect], status: int) -> Response:
    sent = [effect.response for effect in effects if isinstance(effect, SendResponse)]
    return next(response for response in sent if response.status == status)


def silence(call: InviteSession, until: float) -> list[tuple[float, str | SessionEffect]]:
    """Jump from deadline to deadline while nothing arrives."""
    log: list[tuple[float, str | SessionEffect]] = []
    while (due := call.deadline) is not None and due <= until:
        effects = call.tick(due)
        log += [(due, line) for line in wire(effects)] + [(due, effect) for effect in told(effects)]
    return log


def peer_request(dialog: Dialog, method: str, cseq: int, *headers: tuple[str, str], body: bytes = b"") -> Request:
    """A request of the other party inside our dialog."""
    items = [
        ("Via", f"SIP/2.0/UDP 198.51.100.4:5070;branch=z9hG4bKp{method}{cseq}"),
        ("Max-Forwards", "70"),
        ("From", f"{dialog.remote_uri};tag={dialog.remote_tag}"),
        ("To", f"{dialog.local_uri};tag={dialog.local_tag}"),
        ("Call-ID", dialog.call_id),
        ("CSeq", f"{cseq} {method}"),
        *headers,
    ]
    return Request(method, parse_name_addr(dialog.local_uri).uri, Headers(items), body)


# Calls we place.


def policy_of(credentials: Credentials | None, realm: str | None = None) -> CredentialPolicy | None:
    """For the host that is called."""
    return None if credentials is None else CredentialPolicy(Grant(credentials, frozenset({"198.51.100.4"}), realm))


class Dialled:
    """An outgoing call whose INVITE has just gone out at second 0."""

    def __init__(self, credentials: Credentials | None = None, **headers: str) -> None:
        self.call = UacSession(
            agent(),
            parse_name_addr("<sip:7301@192.0.2.20>"),
            parse_name_addr("<sip:7455@198.51.100.4>"),
            call_id="c1",
            sdp=OFFER,
            policy=policy_of(credentials),
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            hangup_headers={"X-Always": "1"},
        )
        self.effects = self.call.start(0.0)
        self.invite = request_in(self.effects, "INVITE")

    def reply(
        self, status: int, *headers: tuple[str, str], tag: str = "bob", body: bytes = b"", now: float = 1.0
    ) -> list[SessionEffect]:
        extra = [PHONE, *headers] + ([SDP] if body else [])
        response = response_to(self.invite, status, None, None if status == 100 else tag, extra, body)
        effects = self.call.receive(response, now)
        if "INVITE" in wire(effects):
            self.invite = request_in(effects, "INVITE")
        return effects

    def answered(self) -> Dialled:
        self.reply(200, body=ANSWER)
        return self

    @property
    def dialog(self) -> Dialog:
        assert self.call.dialog is not None
        return self.call.dialog


def test_invite_carries_what_the_protocol_asks_and_custom_headers_but_no_overrides() -> None:
    dialled = Dialled(X_Tenant="blue", Call_ID="forged", Contact="<sip:evil@x>", X_Bad="a\r\nVia: x")
    invite = dialled.invite
    assert wire(dialled.effects) == ["INVITE"]
    assert invite.headers.get("X-Tenant") == "blue"
    assert (invite.call_id, str(invite.contacts[0])) == ("c1", "<sip:7301@192.0.2.20:13050>")
    assert "X-Bad" not in invite.headers
    assert (invite.max_forwards, str(invite.cseq), invite.to_tag) == (70, "1 INVITE", None)
    assert invite.body == OFFER
    assert isinstance(dialled.effects[0], SendRequest)
    assert str(dialled.effects[0].next_hop) == "sip:7455@198.51.100.4"


def test_ringing_then_answer_is_acknowledged_and_again_for_every_copy() -> None:
    dialled = Dialled()
    assert told(dialled.reply(100)) == []
    assert told(dialled.reply(180)) == [Progress(180, "Ringing", None, "bob")]
    assert told(dialled.reply(183, body=EARLY)) == [Progress(183, "Session Progress", EARLY, "bob")]
    effects = dialled.reply(200, body=ANSWER)
    assert (wire(effects), told(effects)) == (["ACK"], [Answered(ANSWER, "bob")])
    ack = request_in(effects, "ACK")
    assert (str(ack.uri), str(ack.cseq), ack.to_tag) == ("sip:bob@198.51.100.4:5070", "1 ACK", "bob")
    assert ack.via.branch != dialled.invite.via.branch
    again = dialled.reply(200, body=ANSWER)
    assert (request_in(again, "ACK"), told(again)) == (ack, [])


def test_answer_without_sdp_leaves_the_early_answer() -> None:
    dialled = Dialled()
    dialled.reply(183, body=EARLY)
    assert told(dialled.reply(200)) == [Answered(None, "bob")]


def test_first_fork_that_answers_wins_and_the_other_is_acknowledged_and_hung_up() -> None:
    dialled = Dialled()
    assert told(dialled.reply(180, tag="bob")) == [Progress(180, "Ringing", None, "bob")]
    assert told(dialled.reply(180, tag="eve")) == [Progress(180, "Ringing", None, "eve")]
    assert told(dialled.reply(200, tag="eve", body=ANSWER)) == [Answered(ANSWER, "eve")]
    late = dialled.reply(200, tag="bob", body=ANSWER)
    assert (wire(late), told(late)) == (["ACK", "BYE"], [])
    assert request_in(late, "BYE").to_tag == "bob"
    assert dialled.dialog.remote_tag == "eve"
    assert dialled.call.deadline is None


@pytest.mark.parametrize(("status", "reason"), [(302, "Moved Temporarily"), (486, "Busy Here"), (603, "Decline")])
def test_refusal_is_reported_with_its_phrase_and_the_call_lingers_32_s(status: int, reason: str) -> None:
    dialled = Dialled()
    effects = dialled.reply(status, now=2.0)
    assert (wire(effects), told(effects)) == ([], [Refused(status, reason)])
    assert not dialled.call.finished
    assert dialled.call.deadline == 34.0
    silence(dialled.call, 34.0)
    assert dialled.call.finished


def test_challenge_is_answered_once_with_same_call_id_and_tag_and_a_higher_cseq() -> None:
    dialled = Dialled(SECRET, X_Tenant="blue")
    first = dialled.invite
    effects = dialled.reply(401, CHALLENGE)
    second = request_in(effects, "INVITE")
    assert told(effects) == []
    assert (second.call_id, second.from_tag, str(second.cseq)) == (first.call_id, first.from_tag, "2 INVITE")
    assert second.via.branch != first.via.branch
    assert (second.to_tag, second.headers.get("X-Tenant"), second.body) == (None, "blue", OFFER)
    assert proves(second.headers.get("Authorization") or "", SECRET.username, SECRET.password, "INVITE", OFFER)
    assert told(dialled.reply(401, CHALLENGE)) == [Refused(401, "Unauthorized")]


def test_stale_nonce_allows_one_more_try() -> None:
    dialled = Dialled(SECRET)
    dialled.reply(401, CHALLENGE)
    effects = dialled.reply(401, STALE)
    assert str(request_in(effects, "INVITE").cseq) == "3 INVITE"
    assert len(request_in(effects, "INVITE").headers.get_all("Authorization")) == 1
    assert told(dialled.reply(401, STALE)) == [Refused(401, "Unauthorized")]


def test_proxy_challenge_goes_into_proxy_authorization_and_the_ack_repeats_it() -> None:
    dialled = Dialled(SECRET)
    dialled.reply(407, ("Proxy-Authenticate", 'Digest realm="edge", nonce="n1"'))
    proof = dialled.invite.headers.get("Proxy-Authorization")
    assert proof
    ack = request_in(dialled.reply(200, body=ANSWER), "ACK")
    assert ack.headers.get("Proxy-Authorization") == proof
    assert str(ack.cseq) == "2 ACK"


ELSEWHERE = ("Contact", "<sip:eve@203.0.113.66>")
EVIL = ("WWW-Authenticate", 'Digest realm="evil", nonce="n9"')


def test_ack_that_goes_to_a_third_host_has_no_proof() -> None:
    dialled = Dialled(SECRET)
    dialled.reply(401, CHALLENGE)
    assert dialled.invite.headers.get("Authorization")
    answer = response_to(dialled.invite, 200, None, "bob", [ELSEWHERE, SDP], ANSWER)
    ack = request_in(dialled.call.receive(answer, 1.0), "ACK")
    assert (str(ack.uri), ack.headers.get("Authorization")) == ("sip:eve@203.0.113.66", None)


@pytest.mark.parametrize("header", [ELSEWHERE, ("Record-Route", "<sip:203.0.113.66;lr>")])
def test_bye_that_was_led_to_a_third_host_is_not_authenticated(header: tuple[str, str]) -> None:
    dialled = Dialled(SECRET)
    contact = [] if header is ELSEWHERE else [PHONE]
    dialled.call.receive(response_to(dialled.invite, 200, None, "bob", [header, *contact, SDP], ANSWER), 1.0)
    bye = request_in(dialled.call.hang_up(5.0), "BYE")
    assert dialled.call.receive(response_to(bye, 401, headers=[CHALLENGE]), 5.1) == []


def test_second_realm_gets_nothing_in_a_call_whose_first_was_pinned_nor_from_its_heir() -> None:
    dialled = Dialled(SECRET)
    dialled.reply(401, CHALLENGE)
    dialled.reply(200, body=ANSWER)
    stored = json.loads(json.dumps(dialled.call.to_state(2.0)))
    heir = UacSession.from_state(stored, dialled.call.agent, 2.0, policy_of(SECRET))
    for call in (dialled.call, heir):
        bye = request_in(call.hang_up(5.0), "BYE")
        assert call.receive(response_to(bye, 401, headers=[EVIL]), 5.1) == []


def test_call_that_we_got_never_proves_anything() -> None:
    offering = Offering().up()
    bye = request_in(offering.call.hang_up(5.0), "BYE")
    assert offering.call.receive(response_to(bye, 401, headers=[CHALLENGE]), 5.1) == []


@pytest.mark.parametrize("challenge", [CHALLENGE, ("WWW-Authenticate", "Negotiate x")])
def test_challenge_without_credentials_or_scheme_is_a_refusal(challenge: tuple[str, str]) -> None:
    dialled = Dialled(SECRET if challenge is not CHALLENGE else None)
    assert told(dialled.reply(401, challenge)) == [Refused(401, "Unauthorized")]


def test_cancel_before_any_response_waits_for_a_provisional_one() -> None:
    dialled = Dialled()
    effects = dialled.call.hang_up(0.5)
    assert (wire(effects), told(effects)) == ([], [Cancelled()])
    effects = dialled.reply(180, now=1.0)
    cancel = request_in(effects, "CANCEL")
    assert (wire(effects), told(effects)) == (["CANCEL"], [])
    assert (cancel.via, str(cancel.cseq), cancel.uri) == (dialled.invite.via, "1 CANCEL", dialled.invite.uri)
    assert wire(dialled.reply(180, now=1.1)) == []
    assert told(dialled.reply(487, now=1.2)) == []


def test_cancel_while_ringing_goes_out_at_once_without_custom_headers() -> None:
    dialled = Dialled(X_Tenant="blue")
    dialled.reply(180)
    effects = dialled.call.hang_up(2.0, {"X-Bye": "1"})
    assert (wire(effects), told(effects)) == (["CANCEL"], [Cancelled()])
    assert {"X-Tenant", "X-Bye", "X-Always"}.isdisjoint(
        name for name, _ in request_in(effects, "CANCEL").headers.lines()
    )
    assert dialled.call.hang_up(2.1) == []


def test_answer_that_crosses_the_cancel_is_acknowledged_and_hung_up() -> None:
    dialled = Dialled()
    dialled.reply(180)
    dialled.call.hang_up(2.0)
    effects = dialled.reply(200, body=ANSWER, now=2.1)
    assert (wire(effects), told(effects)) == (["ACK", "BYE"], [])
    assert wire(dialled.reply(200, body=ANSWER, now=2.6)) == ["ACK"]


def test_branch_that_does_not_know_our_bye_leaves_the_answered_call_alone() -> None:
    dialled = Dialled().answered()
    bye = request_in(dialled.reply(200, tag="eve", body=ANSWER, now=1.5), "BYE")
    effects = dialled.call.receive(response_to(bye, 481), 2.0)
    assert (effects, dialled.call.is_over) == ([], False)


def test_cancel_after_a_challenge_waits_for_a_response_to_the_second_invite() -> None:
    dialled = Dialled(SECRET)
    dialled.reply(100)
    dialled.reply(401, CHALLENGE)
    assert wire(dialled.call.hang_up(2.0)) == []
    assert str(request_in(dialled.reply(100, now=2.1), "CANCEL").cseq) == "2 CANCEL"


def test_challenge_after_a_cancel_is_not_answered() -> None:
    dialled = Dialled(SECRET)
    dialled.call.hang_up(0.5)
    assert dialled.reply(401, CHALLENGE) == []


def test_no_response_at_all_is_a_408_without_cancel() -> None:
    dialled = Dialled()
    effects = dialled.call.failed(dialled.invite, 408, 32.0)
    assert (wire(effects), told(effects)) == ([], [Refused(408, "Request Timeout", local=True)])


def test_ringing_for_too_long_is_a_408_with_cancel() -> None:
    dialled = Dialled()
    dialled.reply(180)
    effects = dialled.call.failed(dialled.invite, 408, 181.0)
    assert (wire(effects), told(effects)) == (["CANCEL"], [Refused(408, "Request Timeout", local=True)])
    assert dialled.call.failed(dialled.invite, 408, 213.0) == []


def test_transport_failure_is_a_503() -> None:
    dialled = Dialled()
    assert told(dialled.call.failed(dialled.invite, 503, 0.0)) == [Refused(503, "Service Unavailable", local=True)]


def test_hang_up_sends_bye_with_both_kinds_of_headers_and_the_command_wins() -> None:
    call = Dialled().answered().call
    effects = call.hang_up(5.0, {"X-Always": "2", "X-Bye": "b", "To": "<sip:evil@x>"})
    bye = request_in(effects, "BYE")
    assert (wire(effects), told(effects)) == (["BYE"], [])
    assert (bye.headers.get("X-Always"), bye.headers.get("X-Bye")) == ("2", "b")
    assert (str(bye.uri), str(bye.cseq), bye.to_tag) == ("sip:bob@198.51.100.4:5070", "2 BYE", "bob")
    assert call.hang_up(5.1) == []


def test_bye_is_authenticated_too() -> None:
    call = Dialled(SECRET).answered().call
    bye = request_in(call.hang_up(5.0), "BYE")
    again = request_in(call.receive(response_to(bye, 401, headers=[CHALLENGE]), 5.1), "BYE")
    assert str(again.cseq) == "3 BYE"
    assert proves(again.headers.get("Authorization") or "", SECRET.username, SECRET.password, "BYE")
    assert call.receive(response_to(again, 401, headers=[CHALLENGE]), 5.2) == []


def test_remote_bye_ends_the_call_with_its_reason() -> None:
    dialled = Dialled().answered()
    bye = peer_request(dialled.dialog, "BYE", 1, ("Reason", 'Q.850;cause=16;text="Normal clearing"'))
    effects = dialled.call.receive(bye, 5.0)
    assert (wire(effects), told(effects)) == (["200 BYE"], [RemoteHangUp("Normal clearing")])
    assert wire(dialled.call.receive(peer_request(dialled.dialog, "INFO", 2), 5.1)) == ["481 INFO"]


def test_both_sides_hanging_up_at_once_get_200_each() -> None:
    dialled = Dialled().answered()
    dialled.call.hang_up(5.0)
    effects = dialled.call.receive(peer_request(dialled.dialog, "BYE", 1), 5.0)
    assert (wire(effects), told(effects)) == (["200 BYE"], [])


# Calls we get.


def incoming_invite(*headers: tuple[str, str], body: bytes = OFFER) -> Request:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    kind = "Content-Type: application/sdp\r\n" if body else ""
    text = (
        "INVITE sip:4000@192.0.2.20 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.15:5062;branch=z9hG4bKx1\r\n"
        "Record-Route: <sip:p1.example;lr>\r\nMax-Forwards: 70\r\nFrom: <sip:7455@192.0.2.15>;tag=b81Fe0\r\n"
        "To: <sip:4000@192.0.2.20>\r\nCall-ID: k7Qm2x9@192.0.2.15\r\nCSeq: 1 INVITE\r\n"
        f"Contact: <sip:7455@192.0.2.15:5062>\r\n{lines}{kind}\r\n"
    )
    message = parse(text.encode() + body)
    assert isinstance(message, Request)
    return message


class Offering:
    """An incoming call that was offered at second 0."""

    def __init__(self, *headers: tuple[str, str], body: bytes = OFFER) -> None:
        self.invite = incoming_invite(*headers, body=body)
        self.call = UasSession(agent(), self.invite, "Zt5Rw2Lp", hangup_headers={"X-Always": "1"})
        self.effects = self.call.start(0.0)

    @property
    def dialog(self) -> Dialog:
        assert self.call.dialog is not None
        return self.call.dialog

    def get(
        self, method: str, cseq: int, *headers: tuple[str, str], body: bytes = b"", now: float = 5.0
    ) -> list[SessionEffect]:
        extra = [*headers] + ([SDP] if body and not any(name == "Content-Type" for name, _ in headers) else [])
        return self.call.receive(peer_request(self.dialog, method, cseq, *extra, body=body), now)

    def up(self) -> Offering:
        self.call.answer(ANSWER, 1.0)
        self.get("ACK", 1, now=1.1)
        return self


def test_invite_is_answered_100_and_offered_with_its_dialog_id() -> None:
    offering = Offering()
    assert wire(offering.effects) == ["100 INVITE"]
    assert told(offering.effects) == [Offered(OFFER)]
    assert offering.dialog.id == "k7Qm2x9@192.0.2.15-b81Fe0-Zt5Rw2Lp"
    assert offering.call.invite_key == server_key(offering.invite)


def test_ringing_with_and_without_early_media_is_repeatable_and_refreshed_every_minute() -> None:
    offering = Offering()
    ringing = response_in(offering.call.ring(1.0), 180)
    assert (ringing.to_tag, str(ringing.contacts[0])) == ("Zt5Rw2Lp", "<sip:4000@192.0.2.20:13050>")
    assert ringing.headers.get_all("Record-Route") == ("<sip:p1.example;lr>",)
    early = response_in(offering.call.ring(2.0, EARLY), 183)
    assert (early.body, early.content_type) == (EARLY, "application/sdp")
    assert silence(offering.call, 130.0) == [(62.0, "183 INVITE"), (122.0, "183 INVITE")]


def test_answer_is_resent_with_doubling_gaps_up_to_t2_until_the_ack() -> None:
    offering = Offering()
    effects = offering.call.answer(ANSWER, 10.0)
    ok = response_in(effects, 200)
    assert (ok.body, ok.to_tag) == (ANSWER, "Zt5Rw2Lp")
    assert ok.headers.get("Allow") is not None
    assert silence(offering.call, 20.0) == [
        (10.5, "200 INVITE"),
        (11.5, "200 INVITE"),
        (13.5, "200 INVITE"),
        (17.5, "200 INVITE"),
    ]
    assert told(offering.get("ACK", 1, now=20.0)) == [Acknowledged(None)]
    assert offering.call.deadline is None
    assert offering.get("ACK", 1, now=20.1) == []
    assert offering.dialog.state == "confirmed"


def test_answer_without_ack_for_32_s_ends_in_bye() -> None:
    offering = Offering()
    offering.call.answer(ANSWER, 0.0)
    log = silence(offering.call, 40.0)
    assert [at for at, what in log if what == "200 INVITE"] == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert log[-2:] == [(32.0, "BYE"), (32.0, AckMissing())]


def test_offer_of_ours_in_the_200_gets_its_answer_from_the_ack() -> None:
    offering = Offering(body=b"")
    assert told(offering.effects) == [Offered(None)]
    assert response_in(offering.call.answer(OFFER, 1.0), 200).body == OFFER
    assert told(offering.get("ACK", 1, body=ANSWER)) == [Acknowledged(ANSWER)]


def test_rejection_carries_a_reason_header_and_only_one_final_response() -> None:
    offering = Offering()
    response = response_in(offering.call.reject(1.0, 486, 'Gone "fishing"'), 486)
    assert response.headers.get("Reason") == 'SIP;cause=486;text="Gone \\"fishing\\""'
    assert response.to_tag == "Zt5Rw2Lp"
    assert offering.call.reject(1.1) == []
    assert offering.call.ring(1.2) == []
    with pytest.raises(LocalProtocolError):
        offering.call.answer(ANSWER, 1.3)


def test_rejection_without_code_is_603_and_a_success_code_is_our_mistake() -> None:
    assert wire(Offering().call.hang_up(1.0)) == ["603 INVITE"]
    assert "Reason" not in response_in(Offering().call.reject(1.0), 603).headers
    with pytest.raises(LocalProtocolError):
        Offering().call.reject(1.0, 200)


def cancel_of(invite: Request) -> Request:
    headers = invite.headers.with_("CSeq", "1 CANCEL").adding("Reason", 'SIP;cause=200;text="Elsewhere"')
    return Request("CANCEL", invite.uri, headers)


def test_cancel_is_answered_200_and_the_invite_487() -> None:
    offering = Offering()
    offering.call.ring(1.0)
    effects = offering.call.receive(cancel_of(offering.invite), 2.0, cancels=offering.invite)
    assert wire(effects) == ["200 CANCEL", "487 INVITE"]
    assert told(effects) == [Cancelled("Elsewhere")]
    assert response_in(effects, 200).to_tag == "Zt5Rw2Lp"


def test_cancel_after_the_answer_changes_nothing() -> None:
    offering = Offering()
    offering.call.answer(ANSWER, 1.0)
    effects = offering.call.receive(cancel_of(offering.invite), 1.1, cancels=offering.invite)
    assert (wire(effects), told(effects)) == (["200 CANCEL"], [])


def test_bye_is_accepted_before_the_ack_and_stops_the_200() -> None:
    offering = Offering()
    offering.call.answer(ANSWER, 1.0)
    effects = offering.get("BYE", 2, now=1.2)
    assert (wire(effects), told(effects)) == (["200 BYE"], [RemoteHangUp(None)])
    assert silence(offering.call, 99.0) == []
    assert offering.call.finished


def test_bye_before_the_answer_ends_the_invite_with_487() -> None:
    effects = Offering().get("BYE", 2)
    assert (wire(effects), told(effects)) == (["200 BYE", "487 INVITE"], [Cancelled(None)])


def test_hang_up_before_the_ack_waits_for_it() -> None:
    offering = Offering()
    offering.call.answer(ANSWER, 1.0)
    assert offering.call.hang_up(1.2, {"X-Bye": "1"}) == []
    assert silence(offering.call, 1.6) == [(1.5, "200 INVITE")]
    effects = offering.get("ACK", 1, now=1.7)
    assert (wire(effects), told(effects)) == (["BYE"], [])
    assert request_in(effects, "BYE").headers.get("X-Bye") == "1"
    assert request_in(effects, "BYE").headers.get_all("Route") == ("<sip:p1.example;lr>",)


def test_hang_up_before_an_ack_that_never_comes_sends_bye_after_32_s() -> None:
    offering = Offering()
    offering.call.answer(ANSWER, 1.0)
    offering.call.hang_up(1.2)
    assert silence(offering.call, 99.0)[-1] == (33.0, "BYE")
    assert offering.call.finished


@pytest.mark.parametrize(
    ("header", "body", "status", "answer"),
    [
        (("Require", "100rel, timer"), OFFER, 420, ("Unsupported", "100rel")),
        (("Session-Expires", "60"), OFFER, 422, ("Min-SE", "90")),
        (("Content-Type", "text/plain"), b"", 0, ("", "")),
    ],
)
def test_invite_that_asks_the_impossible_is_refused_and_not_offered(
    header: tuple[str, str], body: bytes, status: int, answer: tuple[str, str]
) -> None:
    offering = Offering(header, body=body)
    if not status:
        assert told(offering.effects) == [Offered(None)]
        return
    assert (wire(offering.effects), told(offering.effects)) == ([f"{status} INVITE"], [])
    assert response_in(offering.effects, status).headers.get(answer[0]) == answer[1]


def test_invite_with_another_kind_of_body_is_answered_415() -> None:
    invite = replace(incoming_invite(), headers=incoming_invite().headers.with_("Content-Type", "text/plain"))
    assert wire(UasSession(agent(), invite, "t").start(0.0)) == ["415 INVITE"]


# Inside the dialog.


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("OPTIONS", "200 OPTIONS"),
        ("NOTIFY", "200 NOTIFY"),
        ("MESSAGE", "200 MESSAGE"),
        ("INFO", "200 INFO"),
        ("UPDATE", "200 UPDATE"),
        ("REFER", "400 REFER"),
        ("PUBLISH", "405 PUBLISH"),
        ("SUBSCRIBE", "405 SUBSCRIBE"),
    ],
)
def test_requests_inside_the_dialog_are_answered(method: str, line: str) -> None:
    assert wire(Offering().up().get(method, 2)) == [line]


def test_lower_cseq_is_answered_500_and_foreign_tags_481() -> None:
    offering = Offering().up()
    offering.get("OPTIONS", 7)
    assert wire(offering.get("INFO", 6)) == ["500 INFO"]
    stranger = replace(offering.dialog, remote_tag="other")
    assert wire(offering.call.receive(peer_request(stranger, "BYE", 8), 6.0)) == ["481 BYE"]


def test_unknown_requirement_inside_the_dialog_is_answered_420() -> None:
    assert wire(Offering().up().get("INFO", 2, ("Require", "moon"))) == ["420 INFO"]


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n", DtmfReceived("5", 160)),
        ("application/dtmf-relay", b"Signal= *\r\nDuration= 250", DtmfReceived("*", 250)),
        ("application/dtmf-relay", b"signal=11\n", DtmfReceived("#", None)),
        ("application/dtmf-relay", b"Duration=160", None),
        ("application/dtmf-relay", b"Signal=X", None),
        ("application/dtmf", b" d \r\n", DtmfReceived("D", None)),
        ("application/dtmf", b"55", None),
        ("application/dtmf", b"\xff", None),
    ],
)
def test_dtmf_by_info(kind: str, body: bytes, expected: DtmfReceived | None) -> None:
    assert parse_dtmf(kind, body) == expected
    effects = Offering().up().get("INFO", 2, ("Content-Type", kind), body=body)
    assert (wire(effects), told(effects)) == (["200 INFO"], [] if expected is None else [expected])


def test_message_info_and_refer_reach_the_owner() -> None:
    offering = Offering().up()
    assert told(offering.get("MESSAGE", 2, ("Content-Type", "text/plain;charset=utf-8"), body=b"hi")) == [
        MessageReceived("text/plain;charset=utf-8", b"hi")
    ]
    assert told(offering.get("INFO", 3, ("Content-Type", "application/json"), body=b"{}")) == [
        InfoReceived("application/json", b"{}")
    ]
    effects = offering.get("REFER", 4, ("Refer-To", "<sip:8100@x>"), ("Referred-By", "<sip:7455@x>"))
    assert (wire(effects), told(effects)) == (
        ["202 REFER"],
        [TransferRequested("<sip:8100@x>", "<sip:7455@x>")],
    )


@pytest.mark.parametrize("kind", ["INVITE", "UPDATE"])
def test_remote_offer_is_answered_by_the_owner_and_moves_the_target(kind: str) -> None:
    offering = Offering().up()
    effects = offering.get(kind, 2, ("Contact", "<sip:new@203.0.113.1>"), body=HOLD)
    assert wire(effects) == (["100 INVITE"] if kind == "INVITE" else [])
    assert [type(effect) for effect in told(effects)] == [Reoffered]
    effects = offering.call.answer_reoffer(ANSWER, 5.1)
    assert wire(effects) == [f"200 {kind}"]
    assert response_in(effects, 200).body == ANSWER
    assert offering.dialog.remote_target == "sip:new@203.0.113.1"
    assert (offering.call.deadline is not None) == (kind == "INVITE")
    assert offering.get("ACK", 2) == []
    assert offering.call.deadline is None


def test_reinvite_without_sdp_gets_our_offer_and_its_answer_comes_with_the_ack() -> None:
    offering = Offering().up()
    assert told(offering.get("INVITE", 2)) == [Reoffered(None, "INVITE")]
    offering.call.answer_reoffer(OFFER, 5.1)
    assert told(offering.get("ACK", 2, body=ANSWER)) == [ReofferAnswered(ANSWER)]


def test_reinvite_whose_200_is_never_acknowledged_ends_the_call() -> None:
    offering = Offering().up()
    offering.get("INVITE", 2, body=HOLD)
    offering.call.answer_reoffer(ANSWER, 6.0)
    assert silence(offering.call, 38.0)[-2:] == [(38.0, "BYE"), (38.0, AckMissing())]


def test_refused_reinvite_leaves_the_call_up() -> None:
    offering = Offering().up()
    offering.get("INVITE", 2, body=HOLD)
    assert wire(offering.call.refuse_reoffer(5.1)) == ["488 INVITE"]
    assert wire(offering.call.hang_up(6.0)) == ["BYE"]


def test_second_offer_while_one_is_open_is_500_and_while_ours_is_open_491() -> None:
    offering = Offering().up()
    offering.get("INVITE", 2, body=HOLD)
    effects = offering.get("INVITE", 3, body=HOLD)
    assert response_in(effects, 500).headers.get("Retry-After") == "5"
    assert wire(offering.get("UPDATE", 4, body=HOLD)) == ["500 UPDATE"]
    other = Offering().up()
    other.call.reoffer(HOLD, 4.0)
    assert wire(other.get("INVITE", 2, body=HOLD)) == ["491 INVITE"]
    assert wire(other.get("UPDATE", 3, body=HOLD)) == ["491 UPDATE"]


def test_reinvite_can_be_cancelled() -> None:
    offering = Offering().up()
    reinvite = peer_request(offering.dialog, "INVITE", 2, SDP, body=HOLD)
    offering.call.receive(reinvite, 5.0)
    cancel = peer_request(offering.dialog, "CANCEL", 2)
    effects = offering.call.receive(cancel, 5.1, cancels=reinvite)
    assert (wire(effects), told(effects)) == (["200 CANCEL", "487 INVITE"], [ReofferWithdrawn()])


def test_bye_during_a_reinvite_answers_both() -> None:
    offering = Offering().up()
    offering.get("INVITE", 2, body=HOLD)
    assert wire(offering.get("BYE", 3)) == ["200 BYE", "487 INVITE"]


def test_reinvite_of_ours_is_acknowledged_and_its_answer_reported() -> None:
    call = Dialled().answered().call
    reinvite = request_in(call.reoffer(HOLD, 5.0), "INVITE")
    assert (reinvite.body, str(reinvite.cseq)) == (HOLD, "2 INVITE")
    ok = response_to(reinvite, 200, None, None, [PHONE, SDP], ANSWER)
    effects = call.receive(ok, 5.1)
    assert (wire(effects), told(effects)) == (["ACK"], [ReofferAnswered(ANSWER)])
    assert wire(call.receive(ok, 5.6)) == ["ACK"]
    with pytest.raises(LocalProtocolError):
        call.answer_reoffer(ANSWER, 6.0)


@pytest.mark.parametrize(("role", "wait"), [("caller", 2.1 + 0.95), ("callee", 1.0)])
def test_reinvite_met_by_491_is_tried_again_after_the_wait_of_its_role(role: str, wait: float) -> None:
    call = Dialled().answered().call if role == "caller" else Offering().up().call
    reinvite = request_in(call.reoffer(HOLD, 5.0), "INVITE")
    assert told(call.receive(response_to(reinvite, 491), 10.0)) == []
    assert silence(call, 20.0) == [(pytest.approx(10.0 + wait), "INVITE")]


def test_peer_may_offer_while_ours_waits_after_a_491_and_ours_follows_its_ack() -> None:
    offering = Offering().up()
    reinvite = request_in(offering.call.reoffer(HOLD, 5.0), "INVITE")
    offering.call.receive(response_to(reinvite, 491), 5.1)
    with pytest.raises(LocalProtocolError):
        offering.call.reoffer(OFFER, 5.2)
    assert told(offering.get("INVITE", 2, body=OFFER, now=5.5)) == [Reoffered(OFFER, "INVITE")]
    assert silence(offering.call, 6.5) == []
    offering.call.answer_reoffer(ANSWER, 6.6)
    offering.get("ACK", 2, now=6.7)
    assert silence(offering.call, 8.0) == [(pytest.approx(7.1), "INVITE")]


def test_offer_in_our_200_forbids_another_until_its_answer() -> None:
    offering = Offering(body=b"")
    offering.call.answer(OFFER, 1.0)
    assert wire(offering.get("UPDATE", 2, body=HOLD, now=1.1)) == ["491 UPDATE"]
    with pytest.raises(LocalProtocolError):
        offering.call.reoffer(HOLD, 1.2)


def test_refused_reinvite_of_ours_is_reported_and_481_ends_the_call() -> None:
    call = Dialled().answered().call
    reinvite = request_in(call.reoffer(HOLD, 5.0), "INVITE")
    assert told(call.receive(response_to(reinvite, 488), 5.1)) == [ReofferRefused(488, "Not Acceptable Here")]
    reinvite = request_in(call.reoffer(HOLD, 6.0), "INVITE")
    effects = call.receive(response_to(reinvite, 481), 6.1)
    assert (wire(effects), [type(effect) for effect in told(effects)]) == (["BYE"], [RemoteHangUp])


def test_message_of_ours_is_authenticated_and_its_outcome_reported() -> None:
    call = Dialled(SECRET).answered().call
    message = request_in(call.send_message("grüß".encode(), 5.0), "MESSAGE")
    assert message.headers.get("Content-Type") == "text/plain;charset=utf-8"
    again = request_in(call.receive(response_to(message, 401, headers=[CHALLENGE]), 5.1), "MESSAGE")
    assert told(call.receive(response_to(again, 202), 5.2)) == [RequestAnswered("MESSAGE", 202, "Accepted")]
    info = request_in(call.send_info(b"Signal=1", 6.0, "application/dtmf-relay"), "INFO")
    assert told(call.failed(info, 408, 38.0)) == [RequestAnswered("INFO", 408, "Request Timeout")]


def test_peer_that_refreshes_its_session_keeps_the_call_and_one_that_does_not_loses_it() -> None:
    timer = [("Session-Expires", "90;refresher=uac"), ("Supported", "timer")]
    offering = Offering(*timer)
    ok = response_in(offering.call.answer(ANSWER, 0.0), 200)
    assert ok.headers.get("Session-Expires") == "90;refresher=uac"
    assert ok.headers.get("Require") == "timer"
    offering.get("ACK", 1, now=0.1)
    assert offering.call.deadline == 60.0
    assert wire(offering.get("UPDATE", 2, *timer, now=50.0)) == ["200 UPDATE"]
    assert silence(offering.call, 115.0) == [(110.0, "BYE"), (110.0, SessionExpired())]


def test_session_timer_we_must_refresh_is_refreshed_at_half_time() -> None:
    offering = Offering(("Session-Expires", "600;refresher=uas"), ("Supported", "timer"))
    offering.call.answer(ANSWER, 0.0)
    offering.get("ACK", 1, now=0.1)
    assert silence(offering.call, 700.0) == [(300.0, "UPDATE"), (600.0, "UPDATE")]


@pytest.mark.parametrize(
    ("granted", "deadline"),
    [([("Session-Expires", "90;refresher=uas")], 70.0), ([("Session-Expires", "90;refresher=uac")], 55.0), ([], None)],
)
def test_reinvite_of_ours_keeps_the_session_timer_as_the_peer_grants_it(
    granted: list[tuple[str, str]], deadline: float | None
) -> None:
    offering = Offering(("Session-Expires", "90"), ("Supported", "timer")).up()
    reinvite = request_in(offering.call.reoffer(HOLD, 9.0), "INVITE")
    assert reinvite.headers.get("Session-Expires") == "90;refresher=uas"
    offering.call.receive(response_to(reinvite, 200, None, None, [PHONE, SDP, *granted], ANSWER), 10.0)
    assert offering.call.deadline == deadline


def test_requests_of_ours_never_ask_for_a_session_timer_by_themselves() -> None:
    reinvite = request_in(Dialled().answered().call.reoffer(HOLD, 5.0), "INVITE")
    assert {"Supported", "Session-Expires", "Require"}.isdisjoint(name for name, _ in reinvite.headers.lines())


def test_session_taken_over_by_another_process_can_be_reoffered_and_hung_up() -> None:
    offering = Offering().up()
    stored = json.dumps(offering.call.to_state(10.0))
    call = UasSession.from_state(json.loads(stored), agent(), 5000.0)
    assert str(request_in(call.reoffer(HOLD, 5001.0), "INVITE").uri) == "sip:7455@192.0.2.15:5062"
    effects = call.receive(peer_request(offering.dialog, "BYE", 2), 5002.0)
    assert (wire(effects), told(effects)) == (["200 BYE"], [RemoteHangUp(None)])


def test_offer_that_met_the_peers_is_made_again_by_whoever_took_the_session_over() -> None:
    dialled = Dialled().answered()
    reinvite = request_in(dialled.call.reoffer(HOLD, 5.0), "INVITE")
    dialled.call.receive(response_to(reinvite, 491), 5.5)
    taken = UacSession.from_state(json.loads(json.dumps(dialled.call.to_state(6.0))), dialled.call.agent, 106.0)
    [(due, line)] = silence(taken, 200.0)
    assert (due, line) == (pytest.approx(105.5 + 3.05), "INVITE")


def test_password_is_not_in_the_state() -> None:
    assert SECRET.password not in json.dumps(Dialled(SECRET).call.to_state(1.0))


def test_status_line_of_a_session() -> None:
    assert repr(Dialled().call) == "<UacSession calling, 0 dialogs>"
    offering = Offering()
    offering.call.answer(ANSWER, 1.0)
    dialog = "<dialog k7Qm2x9@192.0.2.15-b81Fe0-Zt5Rw2Lp confirmed as UAS, CSeq 0/1>"
    assert repr(offering.call) == f"<UasSession answered offer open due in 0.5 s, {dialog}>"


# Any order of things.

FINAL = (Refused, Cancelled, RemoteHangUp, AckMissing, SessionExpired)
METHODS = ["ACK", "BYE", "INVITE", "UPDATE", "INFO", "MESSAGE", "REFER", "OPTIONS", "CANCEL"]
STATUSES = [100, 180, 183, 200, 302, 401, 408, 481, 486, 491, 500]
REFRESHED = ("Session-Expires", "1800")

Step = Callable[[UacSession | UasSession, float], list[SessionEffect]]
"""What happens to a session at a moment."""


def steps_of(call: UacSession | UasSession, data: st.DataObject, number: int, seen: list[Request]) -> list[Step]:
    """Everything that may happen to a call next: a request, a response, a wish of the owner, silence."""
    silence_s = data.draw(st.sampled_from([0.0, 2.0, 40.0, 64.0]))
    steps: list[Step] = [
        lambda call, now: call.hang_up(now),
        lambda call, now: call.reoffer(HOLD, now),
        lambda call, now: call.answer_reoffer(ANSWER, now),
        lambda call, now: call.refuse_reoffer(now),
        lambda call, now: call.send_message(b"hi", now),
        lambda call, now: call.tick(now + silence_s),
    ]
    if isinstance(call, UasSession):
        steps += [
            lambda call, now: as_uas(call).ring(now),
            lambda call, now: as_uas(call).answer(ANSWER, now),
            lambda call, now: as_uas(call).reject(now),
        ]
    if call.dialog is not None:
        dialog, body = call.dialog, data.draw(st.sampled_from([b"", HOLD]))
        extra = data.draw(st.sampled_from([(SDP,), (SDP, REFRESHED, ("Supported", "timer"))]))
        request = peer_request(dialog, data.draw(st.sampled_from(METHODS)), number, *extra, body=body)
        steps += [lambda call, now: call.receive(request, now, request)] * 4
    if seen:
        ours = data.draw(st.sampled_from([*seen, *seen[-1:] * 4]))
        tag = data.draw(st.sampled_from(["bob", "bob", "eve"]))
        response = response_to(ours, data.draw(st.sampled_from(STATUSES)), None, tag, [PHONE, CHALLENGE, SDP], ANSWER)
        steps += [lambda call, now: call.receive(response, now)] * 6 + [lambda call, now: call.failed(ours, 408, now)]
    return steps


def as_uas(call: UacSession | UasSession) -> UasSession:
    assert isinstance(call, UasSession)
    return call


def begun(outgoing: bool, answered: bool) -> Dialled | Offering:
    """A new session, or one that is up."""
    if outgoing:
        return Dialled(SECRET).answered() if answered else Dialled(SECRET)
    return Offering().up() if answered else Offering()


def any_story(party: Dialled | Offering, data: st.DataObject) -> tuple[list[Step], list[SessionEffect]]:
    """Up to eleven things that happened to a session, a second apart, and all effects."""
    call, seen, heard = party.call, [], list(party.effects)
    story: list[Step] = []
    for number in range(2, data.draw(st.integers(2, 13))):
        seen += [effect.request for effect in heard if isinstance(effect, SendRequest) and effect.request not in seen]
        story.append(data.draw(st.sampled_from(steps_of(call, data, number, seen))))
        heard += happens(story[-1], call, float(number)) or []
    return story, heard


def happens(step: Step, call: UacSession | UasSession, now: float) -> list[SessionEffect] | None:
    """The effects, None when the state does not allow what the owner wants."""
    try:
        return step(call, now)
    except LocalProtocolError:
        return None


@given(st.booleans(), st.booleans(), st.data())
def test_whatever_happens_a_call_ends_at_most_once_and_is_forgotten_at_last(
    outgoing: bool, answered: bool, data: st.DataObject
) -> None:
    call = (party := begun(outgoing, answered)).call
    _, heard = any_story(party, data)
    heard += call.hang_up(100.0)
    ends = [index for index, effect in enumerate(told(heard)) if isinstance(effect, FINAL)]
    assert len(ends) <= 1
    assert not ends or told(heard)[ends[0] + 1 :] == []
    silence(call, 300.0)
    assert call.finished


@given(st.booleans(), st.booleans(), st.data())
def test_session_that_another_process_takes_over_at_any_moment_goes_on_as_if_nothing_had_happened(
    outgoing: bool, answered: bool, data: st.DataObject
) -> None:
    story, _ = any_story(begun(outgoing, answered), data)
    before, shift = data.draw(st.integers(0, len(story))), data.draw(st.sampled_from([-0.5, 0.0, 4096.0]))
    one, other = begun(outgoing, answered), begun(outgoing, answered)
    for number, step in enumerate(story[:before], 2):
        assert happens(step, one.call, float(number)) == happens(step, other.call, float(number))
    moment = float(before + 1)
    stored = json.loads(json.dumps(other.call.to_state(moment)))
    heir_agent, heir_now = other.call.agent, moment + shift
    taken: UacSession | UasSession = (
        UacSession.from_state(stored, heir_agent, heir_now, policy_of(SECRET))
        if outgoing
        else UasSession.from_state(stored, heir_agent, heir_now)
    )
    again = taken.to_state(moment + shift)
    assert again.pop("timers") == pytest.approx(stored.pop("timers"))  # another clock, another rounding
    assert again == stored
    for number, step in enumerate(story[before:], before + 2):
        assert happens(step, one.call, float(number)) == happens(step, taken, number + shift)
    late = [(due - shift, what) for due, what in silence(taken, 300.0 + shift)]
    assert late == [(pytest.approx(due), what) for due, what in silence(one.call, 300.0)]
    assert taken.finished is one.call.finished


# Outside of calls.


@pytest.mark.parametrize(
    ("method", "status"), [("OPTIONS", 200), ("REFER", 400), ("MESSAGE", 405), ("REGISTER", 405), ("CANCEL", 200)]
)
def test_requests_outside_any_dialog(method: str, status: int) -> None:
    invite = incoming_invite(body=b"")
    request = Request(method, invite.uri, invite.headers.with_("CSeq", f"1 {method}"))
    response = answer_outside_dialog(request, agent())
    assert response is not None
    assert (response.status, response.to_tag) == (status, "tok1")
    inside = replace(request, headers=request.headers.with_("To", "<sip:4000@x>;tag=gone"))
    stray = answer_outside_dialog(inside, agent())
    assert stray is not None
    assert stray.status == 481


def test_own_headers_and_broken_ones_are_not_custom() -> None:
    given = [("v", "x"), ("X-A", "1"), ("X B", "1"), ("X-C", "a\nb"), ("contact", "x"), ("Subject", "hello")]
    assert custom(given) == [("X-A", "1"), ("Subject", "hello")]


def test_reason_is_read_back_as_written() -> None:
    bye = Request("BYE", incoming_invite().uri, Headers([("Reason", reason_value(486, 'a "b"\r\nc'))]))
    assert reason_text(bye) == 'a "b"  c'
    only_cause = Request("BYE", bye.uri, Headers([("Reason", "Q.850;cause=16")]))
    assert reason_text(only_cause) == "Q.850 16"
