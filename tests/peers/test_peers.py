"""The peers against each other: what they catch, they catch for a reason."""

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.harness import eventually
from tests.peers.client import ApiClient
from tests.peers.phone import Message, Phone, is_authorized
from tests.peers.webhook import NEVER, WebhookReceiver


async def test_one_phone_calls_another() -> None:
    async with Phone.open() as alice, Phone.open() as bob:
        out = alice.call(bob.uri, headers=[("X-Tenant", "blue")])
        into = await bob.expect_call()
        assert into.invite is not None
        assert into.invite.header("x-tenant") == "blue"
        into.ringing()
        await out.expect_response(180)
        into.answer()
        ok = await out.expect_response(200)
        assert ok.text == bob.sdp()
        assert out.dialog_id == into.dialog_id
        out.ack()
        await into.expect_request("ACK")
        into.bye()
        await out.expect_bye()
        await into.expect_response(200)


async def test_unanswered_requests_are_sent_again_only_if_wanted_and_kept_out_of_the_script() -> None:
    async with Phone.open() as alice, Phone.open() as bob:
        again, once = alice.call(bob.uri, retransmits=True), alice.call(bob.uri)
        legs = {leg.call_id: leg for leg in (await bob.expect_call(), await bob.expect_call())}
        await eventually(lambda: legs[again.call_id].count("INVITE") >= 2)
        assert legs[once.call_id].count("INVITE") == 1
        legs[again.call_id].assert_silent()
        legs[again.call_id].reject(486)
        await again.expect_response(486)
        await legs[again.call_id].expect_request("ACK")


async def test_what_was_not_expected_fails() -> None:
    async with Phone.open() as alice, Phone.open() as bob:
        out = alice.call(bob.uri)
        (await bob.expect_call()).reject(486)
        with pytest.raises(AssertionError, match="Busy Here"):
            await out.expect_response(200)
        with pytest.raises(TimeoutError):
            await out.expect_response(200, timeout_s=0.01)


async def test_noise_is_held_against_the_sender() -> None:
    async def hear() -> None:
        async with Phone.open() as alice, Phone.open() as bob:
            alice.send_raw(b"OPTIONS sip:x SIP/2.0\r\n\r\n", (bob.host, bob.port))
            await eventually(lambda: bob.unreadable)

    with pytest.raises(AssertionError, match="no SIP"):
        await hear()


def test_digest_of_rfc_2069_and_a_wrong_one() -> None:
    """The example of RFC 2617 §3.5, as SIP writes it."""
    value = (
        'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'uri="/dir/index.html", qop=auth, nc=00000001, cnonce="0a4f113b", response="6629fae49393a05397450978507c4ef1"'
    )
    request = Message("GET /dir/index.html HTTP/1.1", (("Authorization", value),))
    assert is_authorized(request, "Mufasa", "Circle Of Life", "dcd98b7102dd2f0e8b11d0f600bfb0c093")
    assert not is_authorized(request, "Mufasa", "Circle of Life", "dcd98b7102dd2f0e8b11d0f600bfb0c093")


async def test_client_collects_events_and_the_close_code() -> None:
    async def exchange(socket: ServerConnection) -> None:
        assert socket.request is not None
        assert socket.request.path == "/call/sip?id=a@b&dump=false"
        assert await socket.recv() == '{"command": "reject", "code": 486}'
        await socket.send('{"event": "trackEnd"}')
        await socket.send('{"event": "hangup", "reason": "rejected"}')
        await socket.close(1000)

    async with serve(exchange, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with ApiClient.connect(f"ws://127.0.0.1:{port}", call_id="a@b", dump="false") as client:
            await client.send("reject", code=486)
            await client.expect("hangup", reason="rejected")
            assert await client.until_closed() == 1000
            assert client.names == ["trackEnd", "hangup"]
            with pytest.raises(AssertionError, match="closed with 1000"):
                await client.expect("answer")


async def _post(url: str, body: bytes) -> bytes:
    host, _, path = url.removeprefix("http://").partition("/")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nX-One: two\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        async with asyncio.timeout(0.5):
            return await reader.readline()
    finally:
        writer.close()


async def test_webhook_receiver_records_and_answers_as_told() -> None:
    async with WebhookReceiver.open() as hook:
        hook.answers = [500, NEVER]
        assert await _post(hook.url, b'{"event":"invite"}') == b"HTTP/1.1 500 Told\r\n"
        first = await hook.next()
        assert (first.method, first.path, first.headers["x-one"], first.json) == (
            "POST", "/webhook", "two", {"event": "invite"},
        )  # fmt: skip
        with pytest.raises(TimeoutError):
            await _post(hook.url, b"{}")
        assert await _post(hook.url, b"{}") == b"HTTP/1.1 200 Told\r\n"
        assert len(hook.requests) == 3
        hook.refuse()
        with pytest.raises(ConnectionRefusedError):
            await _post(hook.url, b"{}")
