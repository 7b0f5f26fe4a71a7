"""Requests inside a call, and outside of all calls (protocol section 5.9)."""

import pytest

from dialbus.contracts import media
from tests.peers.exchange import Call, Exchange
from tests.peers.phone import Dialog, Phone

HOLD = ("sendonly", "recvonly", "recvonly")
INACTIVE = ("inactive", "inactive", "inactive")


async def _up(exchange: Exchange, phone: Phone) -> tuple[Call, Dialog]:
    dialog = phone.call(exchange.uri)
    call = await exchange.accepted(dialog)
    await exchange.media.expect(media.ConnectLeg)
    return call, dialog


async def _hang_up(call: Call, dialog: Dialog) -> None:
    dialog.bye()
    await dialog.expect_response(200, method="BYE")
    await call.expect("trackEnd")
    await call.expect_end("byCaller", "caller")


@pytest.mark.parametrize(("theirs", "ours", "told"), [HOLD, INACTIVE])
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
async def test_hold_and_resume(
    exchange: Exchange, phone: Phone, theirs: str, ours: str, told: str, method: str
) -> None:
    call, dialog = await _up(exchange, phone)
    for version, (direction, answered, on_hold) in enumerate(
        ((theirs, ours, True), (theirs, ours, True), ("sendrecv", "sendrecv", False)), start=2
    ):
        request = dialog.request(method, phone.sdp(direction=direction, version=version))
        ok = await dialog.expect_response(200, method=method)
        assert f"a={answered}\r\n" in ok.text
        if method == "INVITE":
            dialog.invite = request
            dialog.ack()
        remote = (await exchange.media.expect(media.ConnectLeg)).remote
        assert (remote.on_hold, remote.direction) == (on_hold, told if on_hold else "sendrecv")
        if version != 3:  # a second hold changes nothing
            await call.expect("hold", onHold=on_hold, trackId=call.call_id, refer=False)
    await _hang_up(call, dialog)


async def test_hold_by_a_connection_of_zero(exchange: Exchange, phone: Phone) -> None:
    """RFC 2543."""
    call, dialog = await _up(exchange, phone)
    dialog.invite_again(phone.sdp(connection="0.0.0.0", version=2))
    await dialog.expect_response(200)
    dialog.ack()
    await call.expect("hold", onHold=True)
    await _hang_up(call, dialog)


async def test_versions_of_our_description_grow_and_its_session_stays(exchange: Exchange, phone: Phone) -> None:
    """RFC 3264 §8."""
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.send("accept", option={})
    origins = [_origin((await dialog.expect_response(200)).text)]
    dialog.ack()
    for version in (2, 3):
        dialog.invite_again(phone.sdp(codecs=["18 G729/8000"], version=version))  # refused: leaves no trace
        await dialog.expect_response(488)
        dialog.invite_again(phone.sdp(version=version))
        origins.append(_origin((await dialog.expect_response(200)).text))
        dialog.ack()
    assert len({session for session, _ in origins}) == 1
    assert [version - origins[0][1] for _, version in origins] == [0, 1, 2]
    await call.send("hangup")
    await dialog.expect_bye()


def _origin(sdp: str) -> tuple[str, int]:
    parts = sdp.split("o=", 1)[1].split("\r\n")[0].split()
    return parts[1], int(parts[2])


async def test_reinvite_without_sdp_gets_our_offer(exchange: Exchange, phone: Phone) -> None:
    call, dialog = await _up(exchange, phone)
    dialog.invite_again()
    offer = await dialog.expect_response(200)
    assert "m=audio 40000 RTP/AVP" in offer.text
    dialog.ack(phone.sdp(codecs=["8 PCMA/8000"], version=2))
    assert (await exchange.media.expect(media.ConnectLeg)).remote.codec == "pcma"
    await _hang_up(call, dialog)


async def test_reinvite_without_a_codec_of_ours_changes_nothing(exchange: Exchange, phone: Phone) -> None:
    call, dialog = await _up(exchange, phone)
    dialog.invite_again(phone.sdp(codecs=["18 G729/8000"], version=2))
    await dialog.expect_response(488)
    await _hang_up(call, dialog)
    assert [type(command) for command in exchange.media.heard] == [media.CloseLeg]


@pytest.mark.parametrize(
    ("content_type", "body", "digit"),
    [
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", "5"),
        ("application/dtmf-relay", "Signal=*", "*"),
        ("application/dtmf", "#", "#"),
        ("application/dtmf", "d", "D"),
    ],
)
async def test_info_is_a_key(exchange: Exchange, phone: Phone, content_type: str, body: str, digit: str) -> None:
    call, dialog = await _up(exchange, phone)
    dialog.request("INFO", body, content_type=content_type)
    await dialog.expect_response(200, method="INFO")
    await call.expect("dtmf", digit=digit, trackId=call.call_id, refer=False)
    await exchange.media.expect(media.NoteInput)
    await _hang_up(call, dialog)


@pytest.mark.parametrize(("content_type", "body"), [("application/dtmf", "x"), ("text/plain", "5")])
async def test_info_that_is_no_key_is_no_event(exchange: Exchange, phone: Phone, content_type: str, body: str) -> None:
    call, dialog = await _up(exchange, phone)
    dialog.request("INFO", body, content_type=content_type)
    await dialog.expect_response(200, method="INFO")
    await _hang_up(call, dialog)


async def test_message_refer_options_and_a_method_nobody_knows(exchange: Exchange, phone: Phone) -> None:
    call, dialog = await _up(exchange, phone)
    dialog.request("MESSAGE", "grüß dich", content_type="text/plain;charset=utf-8")
    await dialog.expect_response(200, method="MESSAGE")
    await call.expect("message", body="grüß dich", contentType="text/plain;charset=utf-8", refer=False)

    dialog.request("REFER", headers=[("Refer-To", "<sip:8100@192.0.2.30>"), ("Referred-By", "<sip:a@192.0.2.1>")])
    await dialog.expect_response(202, method="REFER")
    wish = await call.expect("transferRequest", refer=False)
    assert "sip:8100@192.0.2.30" in wish["referTo"]
    assert "sip:a@192.0.2.1" in wish["referredBy"]

    dialog.request("OPTIONS")
    assert "INVITE" in (await dialog.expect_response(200, method="OPTIONS")).header("Allow")
    dialog.request("NOTIFY", headers=[("Event", "refer")])
    await dialog.expect_response(200, method="NOTIFY")
    dialog.request("SUBSCRIBE", headers=[("Event", "dialog")])
    assert "INVITE" in (await dialog.expect_response(405, method="SUBSCRIBE")).header("Allow")
    await _hang_up(call, dialog)


async def test_cseq_that_falls_back_is_refused(exchange: Exchange, phone: Phone) -> None:
    """RFC 3261 §12.2.2."""
    call, dialog = await _up(exchange, phone)
    dialog.request("OPTIONS", cseq=10)
    await dialog.expect_response(200, method="OPTIONS")
    dialog.request("OPTIONS", cseq=9)
    await dialog.expect_response(500, method="OPTIONS")
    dialog.cseq = 10
    await _hang_up(call, dialog)


@pytest.mark.parametrize("method", ["BYE", "INFO", "INVITE", "UPDATE", "OPTIONS"])
async def test_dialog_that_nobody_knows(exchange: Exchange, phone: Phone, method: str) -> None:
    dialog = phone.dialog(exchange.uri)
    dialog.remote += ";tag=nobody"
    message = dialog.request(method)
    if method == "INVITE":
        dialog.invite = message
    await dialog.expect_response(481)


async def test_right_call_id_with_a_wrong_tag_is_no_way_into_a_call(exchange: Exchange, phone: Phone) -> None:
    call, dialog = await _up(exchange, phone)
    right = dialog.remote
    dialog.remote = right.rpartition("tag=")[0] + "tag=guessed"
    dialog.bye()
    await dialog.expect_response(481)
    dialog.remote, ours = right, dialog.local
    dialog.local = ours.rpartition("tag=")[0] + "tag=guessed"
    dialog.bye()
    await dialog.expect_response(481)
    dialog.local = ours
    await _hang_up(call, dialog)


async def test_outside_of_calls(exchange: Exchange, phone: Phone) -> None:
    options = await phone.ask("OPTIONS", exchange.uri).expect_response(200)
    assert "INVITE" in options.header("Allow")
    assert options.header("Accept") == "application/sdp"
    await phone.ask("REFER", exchange.uri, [("Refer-To", "<sip:8100@192.0.2.30>")]).expect_response(400)
    for method in ("MESSAGE", "SUBSCRIBE", "REGISTER", "PUBLISH"):
        await phone.ask(method, exchange.uri).expect_response(405)


async def test_cancel_for_nothing_is_481(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.dialog(exchange.uri)
    dialog.request("CANCEL")
    await dialog.expect_response(481)


async def test_extension_that_nobody_has_is_420(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri, headers=[("Require", "100rel")])
    assert (await dialog.expect_response(420)).header("Unsupported") == "100rel"
    await exchange.bus.flush()
    assert exchange.webhooks.empty()
