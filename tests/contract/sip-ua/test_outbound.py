"""Calls that a client places: invite to hangup at a real sip-ua (protocol sections 2.1, 4 and 5)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dialbus.bus import Refused
from dialbus.contracts import media
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.commands import Pause, Tts
from dialbus.contracts.session import CallState, OpenSession, Session
from tests.harness import eventually, refused_raw
from tests.peers.exchange import GATEWAY, RTP, SSRC, Call, Exchange
from tests.peers.phone import Dialog, Message, Phone, is_authorized

NONCE = "84f1c1ae6cbe5ua9c8e88dfa3ecm3459"


async def _rung(exchange: Exchange, phone: Phone, **option: object) -> tuple[Call, Dialog]:
    """A call that rings at the phone."""
    call = await exchange.opened("invite", option={"callee": phone.uri, **option})
    await call.expect("trackStart", trackId=call.call_id)
    dialog = await phone.expect_call()
    dialog.ringing()
    await call.expect("ringing", trackId=call.call_id, earlyMedia=False, refer=False)
    return call, dialog


async def _answered(exchange: Exchange, phone: Phone, **option: object) -> tuple[Call, Dialog]:
    """A call that the phone has answered."""
    call, dialog = await _rung(exchange, phone, **option)
    dialog.answer()
    await dialog.expect_request("ACK")
    await call.expect("answer")
    return call, dialog


async def test_answered_and_hung_up_by_the_callee(exchange: Exchange, phone: Phone) -> None:
    """O1 and O15; Contact, caller and offer as protocol 5.1 and 5.7 say."""
    call, dialog = await _rung(exchange, phone)
    invite = dialog.invite
    assert invite is not None
    host, port = exchange.address
    assert invite.uri == phone.uri
    assert invite.header("From").startswith(f"<sip:{host}:{port}>;tag=")
    assert invite.header("To") == f"<{phone.uri}>"
    assert invite.header("Contact") == f"<sip:{host}:{port}>"
    assert invite.header("Call-ID") == call.call_id
    assert f"m=audio {RTP[1]} RTP/AVP 9 0 8 101" in invite.text

    answer = dialog.answer()
    ack = await dialog.expect_request("ACK")
    assert ack.uri == phone.uri
    assert (await call.expect("answer", refer=False))["sdp"] == answer.text
    remote = (await exchange.media.expect(media.ConnectLeg)).remote
    assert (remote.address, remote.port) == phone.rtp.getsockname()
    assert remote.codec == "pcmu"
    session = await _written(call, state=CallState.UP)
    assert (session.owner, session.gateway, session.direction) == (exchange.ua.instance, GATEWAY, "outbound")

    bye = Message(*_bye_of(dialog))
    phone.send(bye, dialog.peer)
    await dialog.expect_response(200, method="BYE")
    await call.expect("trackEnd", trackId=call.call_id, ssrc=SSRC)
    hangup = await call.expect_end("byCallee", "callee")
    assert hangup["startTime"] <= hangup["ringingTime"] <= hangup["answerTime"] <= hangup["hangupTime"]
    assert hangup["to"]["source"] == phone.uri
    assert hangup["extra"]["session_id"] == call.call_id


def _bye_of(dialog: Dialog) -> tuple[str, tuple[tuple[str, str], ...]]:
    message = dialog.build("BYE", cseq=1)
    return message.start, message.headers


async def test_hung_up_by_the_client(exchange: Exchange, phone: Phone) -> None:
    """O16."""
    sip = {"headers": {"X-Tenant": "blue", "Via": "SIP/2.0/UDP evil"}, "hangup_headers": {"X-Cost": "1"}}
    call, dialog = await _answered(exchange, phone, sip=sip)
    assert dialog.invite is not None
    assert dialog.invite.header("X-Tenant") == "blue"
    assert len(dialog.invite.all("Via")) == 1
    await call.send("hangup", reason="done")
    bye = await dialog.expect_bye()
    assert bye.header("X-Cost") == "1"
    assert not bye.all("X-Tenant")
    assert bye.cseq > dialog.invite.cseq
    await call.expect("trackEnd")
    await call.expect_end("done", "system")


@pytest.mark.parametrize(
    ("status", "phrase"), [(486, "Busy Here"), (603, "Decline"), (302, "Moved Temporarily"), (480, "Nobody home")]
)
async def test_refused(exchange: Exchange, phone: Phone, status: int, phrase: str) -> None:
    """O2."""
    call, dialog = await _rung(exchange, phone)
    dialog.reject(status, reason=phrase)
    assert dialog.invite is not None
    assert (await dialog.expect_request("ACK")).branch == dialog.invite.branch
    await call.expect("reject", code=status, reason=phrase, refer=False, trackId=call.call_id)
    assert (await call.expect("trackEnd"))["duration"] == 0
    await call.expect_end("rejected", "callee")
    await exchange.media.expect(media.CloseLeg)


async def test_hung_up_while_ringing_is_a_cancel(exchange: Exchange, phone: Phone) -> None:
    """O4; the custom headers of the BYE are not on the CANCEL."""
    call, dialog = await _rung(exchange, phone, sip={"hangup_headers": {"X-Cost": "1"}})
    await call.send("hangup")
    cancel = await dialog.expect_request("CANCEL")
    assert dialog.invite is not None
    assert (cancel.branch, cancel.uri, cancel.cseq) == (dialog.invite.branch, dialog.invite.uri, dialog.invite.cseq)
    assert not cancel.all("X-Cost")
    dialog.reply(cancel, 200)
    dialog.reject(487)
    await dialog.expect_request("ACK")
    await call.expect("trackEnd")
    await call.expect_end("bySystem", "system")
    assert "reject" not in call.names


async def test_socket_lost_while_ringing_is_a_cancel(exchange: Exchange, phone: Phone) -> None:
    call, dialog = await _rung(exchange, phone)
    await call.detach()
    dialog.reply(await dialog.expect_request("CANCEL"), 200)
    dialog.reject(487)
    await dialog.expect_request("ACK")
    await call.expect("trackEnd")
    await call.expect_end("bySystem", "system")


async def test_cancel_waits_for_the_first_provisional(exchange: Exchange, phone: Phone) -> None:
    """RFC 3261 §9.1."""
    call = await exchange.opened("invite", option={"callee": phone.uri})
    dialog = await phone.expect_call()
    await call.send("hangup")
    await call.expect("trackStart")
    await call.expect("trackEnd")
    await call.expect_end("bySystem", "system")
    dialog.assert_silent()
    dialog.ringing()
    dialog.reply(await dialog.expect_request("CANCEL"), 200)
    dialog.reject(487)
    await dialog.expect_request("ACK")


async def test_answer_that_crosses_the_cancel_is_acknowledged_and_hung_up(exchange: Exchange, phone: Phone) -> None:
    call, dialog = await _rung(exchange, phone)
    await call.send("hangup")
    cancel = await dialog.expect_request("CANCEL")
    dialog.answer()
    dialog.reply(cancel, 200)
    await dialog.expect_request("ACK")
    await dialog.expect_bye()
    await call.expect("trackEnd")
    await call.expect_end("bySystem", "system")


async def test_answer_that_waits_behind_other_work_is_hung_up_too(exchange: Exchange, phone: Phone) -> None:
    """The hangup waits behind a busy worker, meanwhile the 200 is acknowledged: the hangup must become a BYE."""
    call, dialog = await _rung(exchange, phone)
    acknowledged = asyncio.Event()

    async def answer_first(command: media.LegRequest[Any]) -> Contract:
        if isinstance(command, media.Playback):
            await call.send("hangup")
            dialog.answer()
            await dialog.expect_request("ACK")
            acknowledged.set()
        return Taken()

    exchange.media.answer = answer_first
    await call.send("interrupt")
    async with asyncio.timeout(5):
        await acknowledged.wait()
    await dialog.expect_bye()
    await call.expect("trackEnd")
    await call.expect_end("bySystem", "system")


@pytest.mark.parametrize(
    ("status", "challenge", "header"),
    [(401, "WWW-Authenticate", "Authorization"), (407, "Proxy-Authenticate", "Proxy-Authorization")],
)
@pytest.mark.parametrize("qop", ['qop="auth", ', ""])
async def test_challenge_is_answered(
    exchange: Exchange, phone: Phone, status: int, challenge: str, header: str, qop: str
) -> None:
    """Protocol 5.2."""
    call = await exchange.opened(
        "invite", option={"callee": phone.uri, "sip": {"username": "7301", "password": "s3cr3t"}}
    )
    dialog = await phone.expect_call()
    first = dialog.invite
    assert first is not None
    assert first.header("From").startswith(f"<sip:7301@{exchange.address[0]}>;tag=")
    assert not first.all(header)
    dialog.reject(status, [(challenge, f'Digest realm="there", {qop}algorithm=MD5, nonce="{NONCE}"')])
    await dialog.expect_request("ACK")
    second = await dialog.expect_request("INVITE")
    assert is_authorized(second, "7301", "s3cr3t", NONCE, header=header), second.header(header)
    assert second.cseq == first.cseq + 1
    assert (second.header("From"), second.header("Call-ID")) == (first.header("From"), first.header("Call-ID"))
    dialog.ringing()
    dialog.answer()
    ack = await dialog.expect_request("ACK")
    assert ack.cseq == second.cseq
    for name in ("trackStart", "ringing", "answer"):
        await call.expect(name)

    await call.send("hangup")
    bye = await dialog.expect_request("BYE")
    dialog.reply(bye, status, headers=[(challenge, f'Digest realm="there", {qop}nonce="{NONCE}"')])
    again = await dialog.expect_bye()
    assert is_authorized(again, "7301", "s3cr3t", NONCE, header=header)


async def test_challenge_without_credentials_is_that_refusal(exchange: Exchange, phone: Phone) -> None:
    """O5."""
    call = await exchange.opened("invite", option={"callee": phone.uri})
    dialog = await phone.expect_call()
    dialog.reject(401, [("WWW-Authenticate", f'Digest realm="there", nonce="{NONCE}"')])
    await dialog.expect_request("ACK")
    await call.expect("trackStart")
    await call.expect("reject", code=401, reason="Unauthorized")
    await call.expect("trackEnd")
    await call.expect_end("rejected", "callee")


async def test_wrong_password_is_that_refusal(exchange: Exchange, phone: Phone) -> None:
    """O5; nothing of the password is in the books, the stream or the log."""
    password = "correct-horse-battery"
    call = await exchange.opened(
        "invite", option={"callee": phone.uri, "sip": {"username": "7301", "password": password}}
    )
    dialog = await phone.expect_call()
    session = await _written(call, state=CallState.DIALING)
    assert session.option is not None
    assert session.option["sip"] == {"username": "7301", "password": "***"}
    challenge = [("Proxy-Authenticate", f'Digest realm="there", nonce="{NONCE}"')]
    dialog.reject(407, challenge)
    await dialog.expect_request("ACK")
    assert not is_authorized(await dialog.expect_request("INVITE"), "7301", "right", NONCE)
    dialog.reject(407, challenge)
    await dialog.expect_request("ACK")
    await call.expect("trackStart")
    await call.expect("reject", code=407)
    await call.expect("trackEnd")
    await call.expect_end("rejected", "callee")
    assert password not in json.dumps(call.events)
    assert "407" in exchange.ua.log
    assert password not in exchange.ua.log


async def _written(call: Call, **fields: object) -> Session:
    """The books, once they say this."""

    async def said() -> bool:
        session = await call.session()
        return all(getattr(session, name) == value for name, value in fields.items())

    probe: Callable[[], bool | Awaitable[bool]] = said
    await eventually(probe, what=str(fields))
    return await call.session()


async def test_early_media_is_kept_by_an_answer_without_sdp(exchange: Exchange, phone: Phone) -> None:
    """Protocol 5.8."""
    call = await exchange.opened("invite", option={"callee": phone.uri})
    dialog = await phone.expect_call()
    early = dialog.ringing(phone.sdp(codecs=["8 PCMA/8000"]))
    await call.expect("trackStart")
    await call.expect("ringing", earlyMedia=True)
    assert (await exchange.media.expect(media.ConnectLeg)).remote.codec == "pcma"
    dialog.answer("")
    await dialog.expect_request("ACK")
    await call.expect("answer", sdp=early.text)
    assert (await exchange.media.expect(media.ConnectLeg)).remote.codec == "pcma"
    await call.send("hangup")
    await dialog.expect_bye()


async def test_early_media_is_replaced_by_the_answers_sdp(exchange: Exchange, phone: Phone) -> None:
    call = await exchange.opened("invite", option={"callee": phone.uri})
    dialog = await phone.expect_call()
    dialog.ringing(phone.sdp(codecs=["8 PCMA/8000"]))
    await exchange.media.expect(media.ConnectLeg)
    dialog.answer(phone.sdp(codecs=["0 PCMU/8000"]))
    await dialog.expect_request("ACK")
    assert (await exchange.media.expect(media.ConnectLeg)).remote.codec == "pcmu"
    await call.send("hangup")
    await dialog.expect_bye()


@pytest.mark.parametrize("body", ["", "v=0\r\nnonsense\r\n", "g729"])
async def test_answer_without_usable_sdp(exchange: Exchange, phone: Phone, body: str) -> None:
    """O6."""
    call, dialog = await _rung(exchange, phone)
    dialog.answer(phone.sdp(codecs=["18 G729/8000"]) if body == "g729" else body)
    await dialog.expect_request("ACK")
    await dialog.expect_bye()
    await call.expect("reject", code=488)
    await call.expect("trackEnd")
    await call.expect_end("rejected", "callee")


@pytest.mark.parametrize("callee", ["tel:+4930123456", "sip:", "sip:7455@", "sip:a b@c", "sip:7@host.invalid", ""])
async def test_callee_that_cannot_be_called(exchange: Exchange, callee: str) -> None:
    """O7; no worker is asked for a leg."""
    call = await exchange.opened("invite", option={"callee": callee})
    await call.expect("error", sender="invite", trackId=call.call_id)
    await call.expect_end("failed", "system")
    assert exchange.media.allocations.empty()


async def test_callee_without_scheme_and_caller_with_name(exchange: Exchange, phone: Phone) -> None:
    caller = '"Front Desk" <sip:7301@192.0.2.1:5062>'
    call = await exchange.opened("invite", option={"callee": phone.uri.removeprefix("sip:"), "caller": caller})
    dialog = await phone.expect_call()
    assert dialog.invite is not None
    assert dialog.invite.header("From").startswith(f"{caller};tag=")
    assert dialog.invite.header("Contact") == f"<sip:7301@127.0.0.1:{exchange.address[1]}>"
    dialog.reject(486)
    await dialog.expect_request("ACK")
    await call.expect("trackStart")
    await call.expect("reject", code=486)
    await call.expect("trackEnd")
    hangup = await call.expect_end("rejected", "callee")
    assert hangup["to"]["username"] == "phone"


async def test_session_id_that_is_no_call_id_gets_a_random_one(exchange: Exchange, phone: Phone) -> None:
    call_id = "mit Leerzeichen/ü?@x"
    call = await exchange.opened("invite", call_id, option={"callee": phone.uri})
    dialog = await phone.expect_call()
    assert dialog.call_id.isalnum()
    dialog.reject(486)
    await dialog.expect_request("ACK")
    for name in ("trackStart", "reject", "trackEnd"):
        await call.expect(name)
    await call.expect_end("rejected", "callee")


async def test_option_reaches_the_worker_and_held_playback_waits_for_the_answer(
    exchange: Exchange, phone: Phone
) -> None:
    option = {"denoise": True, "asr": {"provider": "whisper", "startWhenAnswer": True}, "vad": {}}
    call, dialog = await _rung(exchange, phone, **option)
    configured = await exchange.media.expect(media.ConfigureLeg)
    assert (configured.denoise, configured.asr) == (True, None)
    await call.send("tts", text="hello", playId="p")
    dialog.answer()
    await dialog.expect_request("ACK")
    await call.expect("answer")
    assert (await exchange.media.expect(media.Playback)).command == Tts(text="hello", play_id="p")
    kinds = [type(command) for command in exchange.media.heard]
    assert kinds == [media.ConnectLeg, media.ConfigureLeg]
    assert (await exchange.media.expect(media.ConfigureLeg)).asr is not None
    await call.send("hangup")
    await dialog.expect_bye()


async def test_second_invite_and_accept_are_errors_and_the_call_goes_on(exchange: Exchange, phone: Phone) -> None:
    call, dialog = await _rung(exchange, phone)
    await call.send("invite", option={"callee": phone.uri})
    await call.expect("error", sender="command")
    await call.send("reject")
    await call.expect("error", sender="command")
    dialog.answer()
    await dialog.expect_request("ACK")
    await call.expect("answer")
    await call.send("hangup")
    await dialog.expect_bye()


async def test_accept_without_a_pending_call(exchange: Exchange) -> None:
    call = await exchange.opened("accept", option={})
    await call.expect("reject", code=486, reason="no pending call")
    await call.expect("error", sender="accept")
    await call.expect_end("failed", "system")


async def test_idle_session_is_owned_and_takes_commands_at_once(exchange: Exchange, phone: Phone) -> None:
    """The first command is answered when the second one finds its listener."""
    call = await exchange.opened("history", speaker="system", text="hello")
    await call.send("custom", data={"note": 1})
    await call.expect("addHistory", sender=call.call_id)
    await call.expect("custom")
    await _written(call, owner=exchange.ua.instance, state=CallState.IDLE)
    await call.send("invite", option={"callee": phone.uri})
    dialog = await phone.expect_call()
    dialog.reject(486)
    await dialog.expect_request("ACK")
    for name in ("trackStart", "reject", "trackEnd"):
        await call.expect(name)
    await call.expect_end("rejected", "callee")


async def test_call_that_breaks_inside_is_ended_for_everybody(exchange: Exchange, phone: Phone) -> None:
    """A worker's answer that nobody foresaw: the client is told, the leg is given back, the next call works."""
    exchange.media.address = "no address"
    call = await exchange.opened("invite", option={"callee": phone.uri})
    await call.expect("error", sender="invite", error="internal error")
    await call.expect_end("failed", "system")
    await exchange.media.expect(media.CloseLeg)
    exchange.media.address = RTP[0]
    _, dialog = await _rung(exchange, phone)
    dialog.reject(486)
    await dialog.expect_request("ACK")


async def test_session_id_in_use_is_refused(exchange: Exchange, phone: Phone) -> None:
    call, dialog = await _answered(exchange, phone)
    again = OpenSession(call_id=call.call_id, created_at="", gateway=GATEWAY, command=Pause())
    with pytest.raises(Refused, match="in use"):
        await exchange.bus.request(again)
    await call.send("hangup")
    await dialog.expect_bye()


async def test_first_command_that_makes_no_sense_is_refused(exchange: Exchange) -> None:
    opening = {"created_at": "", "gateway": GATEWAY}
    refusal = await refused_raw(exchange.bus, OpenSession, "s.dance", {"command": "dance"}, **opening)
    assert (refusal.code, "dance" in refusal.reason) == (400, True)
