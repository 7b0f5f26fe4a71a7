"""Calls over IPv6: addresses in brackets, `IN IP6` in descriptions (protocol 5.7)."""

import socket

import pytest

from dialbus.bus import Bus
from dialbus.contracts import media
from tests.harness import run_service
from tests.peers.exchange import RTP, Exchange
from tests.peers.phone import Phone


def _no_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return True
    return False


@pytest.mark.skipif(_no_ipv6(), reason="this machine has no IPv6")
async def test_calls_in_both_directions(bus: Bus, service_env: dict[str, str]) -> None:
    settings = {name: value for name, value in service_env.items() if name != "DIALBUS_EXTERNAL_IP"}
    async with (
        run_service("sip_ua", settings | {"DIALBUS_UA_ADDR": "::1"}) as ua,
        Exchange.open(bus, ua) as exchange,
        Phone.open("::1") as phone,
    ):
        exchange.media.address = "::1"
        port = exchange.address[1]
        inbound = phone.call(exchange.uri)
        webhook = await exchange.announced(inbound)
        assert webhook.body.caller == phone.uri
        call = exchange.follow(webhook.call_id)
        await call.expect("incoming")
        await call.send("accept", option={})
        answer = await inbound.expect_response(200)
        assert answer.header("Contact") == f"<sip:4000@[::1]:{port}>"
        assert "c=IN IP6 ::1\r\n" in answer.text
        inbound.ack()
        remote = (await exchange.media.expect(media.ConnectLeg)).remote
        assert (remote.address, remote.port) == phone.rtp.getsockname()[:2]
        inbound.bye()
        await inbound.expect_response(200, method="BYE")

        call = await exchange.opened("invite", option={"callee": phone.uri})
        outbound = await phone.expect_call()
        invite = outbound.invite
        assert invite is not None
        assert invite.uri == phone.uri
        assert invite.header("Via").startswith(f"SIP/2.0/UDP [::1]:{port};branch=")
        assert invite.header("From").startswith(f"<sip:[::1]:{port}>;tag=")
        assert f"c=IN IP6 ::1\r\nt=0 0\r\nm=audio {RTP[1]} RTP/AVP 9 0 8 101" in invite.text
        outbound.answer()
        await outbound.expect_request("ACK")
        await call.expect("trackStart")
        await call.expect("answer")
        await call.send("hangup")
        await outbound.expect_bye()
