"""sipp calls us and is called: strict scenarios, where any message that does not belong fails the call."""

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.ensemble import Exchange
from tests.harness import eventually
from tests.interop.conftest import SippCalls, SippListens
from tests.interop.sipp import Sipp
from tests.peers.client import ApiClient
from tests.peers.digest import answer, proves
from tests.peers.rtp import PAYLOAD_TYPES, RtpPeer, open_peer, tone

pytestmark = pytest.mark.interop

BURST = 50
CREDENTIALS = {"username": "7301", "password": "s3cr3t"}


@pytest.fixture(autouse=True)
async def nothing_leaks(exchange: Exchange) -> AsyncIterator[None]:
    """After every test the services are without calls, and know it."""
    yield

    async def is_idle() -> bool:
        calls, legs = (await health(exchange, "sip-ua"))["calls"], (await health(exchange, "media"))["legs"]
        return bool(calls == legs == 0)

    await eventually(is_idle, what="sip-ua and media without calls")


async def health(exchange: Exchange, service: str) -> dict[str, Any]:
    """What a service tells of itself."""

    def get() -> dict[str, Any]:
        with urllib.request.urlopen(exchange.health[service], timeout=5) as answer:
            facts: dict[str, Any] = json.load(answer)
            return facts

    return await asyncio.to_thread(get)


@asynccontextmanager
async def taking(exchange: Exchange, number: str) -> AsyncIterator[ApiClient]:
    """The socket of the call to this number; afterwards it was closed as the end of a call is."""
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.expect("incoming")
        yield client
        assert await client.until_closed() == 1000
    assert client.names[-1] == "hangup"


async def ended(client: ApiClient, reason: str, initiator: str) -> None:
    """The end of a call as the client sees it (O15, O16): the main track, then hangup, then the socket."""
    await client.expect("hangup", reason=reason, initiator=initiator)
    assert await client.until_closed() == 1000
    assert client.names[-2:] == ["trackEnd", "hangup"]


# -- sipp calls: ends -----------------------------------------------------------------------------


async def test_sipp_calls_and_ends_the_call(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_bye", number)
    async with taking(exchange, number) as client:
        await client.send("accept", option={})
        await ended(client, "byCaller", "caller")
    await sipp.succeeded()


async def test_sipp_calls_and_we_end_the_call(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_awaits_bye", number)
    async with taking(exchange, number) as client:
        await client.send("accept", option={})
        await client.expect("mediaReady")
        await client.send("hangup")
        await ended(client, "bySystem", "system")
    await sipp.succeeded()


@pytest.mark.parametrize(("code", "final"), [({}, "603 Decline"), ({"code": 486}, "486 Busy Here")])
async def test_a_call_is_refused(exchange: Exchange, sipp_calls: SippCalls, code: dict[str, int], final: str) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_refused", number)
    async with taking(exchange, number) as client:
        await client.send("reject", reason="the line is taken", **code)
        await client.expect("hangup", reason="the line is taken", initiator="callee")
    await sipp.succeeded()
    assert f"SIP/2.0 {final}" in sipp.received


async def test_the_caller_gives_up_while_it_rings(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_cancels_ringing", number)
    async with taking(exchange, number) as client:
        await client.send("ringing")
        await client.expect("hangup", reason="canceled", initiator="caller")
    await sipp.succeeded()


async def test_the_caller_gives_up_at_once(exchange: Exchange, sipp_calls: SippCalls) -> None:
    await (await sipp_calls("uac_cancels_at_once", exchange.number())).succeeded()


async def test_a_cancel_that_comes_too_late_ends_nothing(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_cancels_too_late", number)
    async with taking(exchange, number) as client:
        await client.send("accept", option={})
        await ended(client, "byCaller", "caller")
    await sipp.succeeded()


# -- sipp calls: a bad network --------------------------------------------------------------------


async def test_a_200_is_repeated_until_its_ack(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_lost_ack", number, "-nr")
    async with taking(exchange, number) as client:
        await client.send("accept", option={})
        await ended(client, "byCaller", "caller")
    await sipp.succeeded()


async def test_an_invite_that_comes_three_times_is_one_call(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_repeats_invite", number, "-nr")
    async with taking(exchange, number) as client:
        await eventually(lambda: sipp.received.count("SIP/2.0 100 Trying") == 3, what="an answer to each copy")
        assert (await health(exchange, "sip-ua"))["calls"] == 1
        await client.send("accept", option={})
        await client.expect("mediaReady")
        await client.send("hangup")
        await ended(client, "bySystem", "system")
    await sipp.succeeded()
    assert len(exchange.webhook.announced[number]) == 1


@pytest.mark.parametrize(("scenario", "reason"), [("uac_awaits_bye", "bySystem"), ("uac_bye", "byCaller")])
async def test_fifty_calls_ten_a_second_begin_and_end_well(
    exchange: Exchange, sipp_calls: SippCalls, scenario: str, reason: str
) -> None:
    number = exchange.number()
    sipp = await sipp_calls(scenario, number, "-m", str(BURST), "-r", "10")
    announced = exchange.webhook.announced

    async def take(index: int) -> None:
        await eventually(lambda: len(announced.get(number, [])) > index, 20, what=f"the announcement of call {index}")
        async with exchange.client(announced[number][index]["dialogId"]) as client:
            await client.send("accept", option={})
            if reason == "bySystem":
                await client.expect("mediaReady")
                await client.send("hangup")
            await ended(client, reason, reason.removeprefix("by").lower())

    async with asyncio.TaskGroup() as calls:
        for index in range(BURST):
            calls.create_task(take(index))
    await sipp.succeeded()
    assert len({body["dialogId"] for body in announced[number]}) == BURST


# -- sipp calls: within a call --------------------------------------------------------------------


async def test_hold_and_resume(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_holds", number)
    async with taking(exchange, number) as client:
        await client.send("accept", option={})
        await ended(client, "byCaller", "caller")
    await sipp.succeeded()
    held = [event["onHold"] for event in client.events if event["event"] == "hold"]
    assert held == [True, False, True, False, True]


async def test_an_invite_without_offer_is_given_one(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    phone = await open_peer("pcma")
    try:
        sipp = await sipp_calls("uac_delayed_offer", number, rtp_port=phone.address[1])
        async with taking(exchange, number) as client:
            await client.send("accept", option={})
            await client.expect("answer")
            await audio_flows(client, phone)
            await client.send("hangup")
            await ended(client, "bySystem", "system")
        await sipp.succeeded()
    finally:
        phone.close()
    assert exchange.webhook.announced[number][0]["offer"] == ""


async def test_a_reinvite_without_offer_is_given_one(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_reinvite_without_offer", number)
    async with taking(exchange, number) as client:
        await client.send("accept", option={})
        await ended(client, "byCaller", "caller")
    await sipp.succeeded()
    assert "hold" not in client.names


async def test_an_offer_of_nothing_we_know_is_a_488(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_foreign_codec", number)
    async with taking(exchange, number) as client:
        await client.send("accept", option={})
        assert (await client.expect("error"))["sender"] == "accept"
    await sipp.succeeded()
    assert "answer" not in client.names


async def test_options_and_requests_for_no_dialog_are_answered(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    await (await sipp_calls("uac_options", number)).succeeded()
    assert number not in exchange.webhook.announced


async def test_a_reinvite_moves_the_audio(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    before, after = await open_peer("pcmu"), await open_peer("pcma")
    try:
        port, second = (str(peer.address[1]) for peer in (before, after))
        sipp = await sipp_calls("uac_moves", number, "-key", "rtp_port_2", second, rtp_port=int(port))
        async with taking(exchange, number) as client:
            await client.send("accept", option={})
            await client.expect("answer")
            await audio_flows(client, after)
            await client.send("hangup")
            await ended(client, "bySystem", "system")
        await sipp.succeeded()
        assert {packet.payload_type for packet in after.heard} == {PAYLOAD_TYPES["pcma"]}
    finally:
        before.close()
        after.close()


async def test_requests_within_a_call_are_answered_and_told(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_asks_within", number)
    async with taking(exchange, number) as client:
        await client.send("accept", option={})
        await client.expect("dtmf", digit="5")
        await client.expect("dtmf", digit="#")
        await eventually(lambda: "FLY" in sipp.messages, what="the last request")
        await client.send("hangup")
        await ended(client, "bySystem", "system")
    await sipp.succeeded()


async def test_a_call_over_proxies_keeps_to_its_route(exchange: Exchange, sipp_calls: SippCalls) -> None:
    number = exchange.number()
    sipp = await sipp_calls("uac_behind_proxies", number)
    async with taking(exchange, number) as client:
        await client.send("accept", option={})
        await client.expect("mediaReady")
        await client.send("hangup")
        await ended(client, "bySystem", "system")
    await sipp.succeeded()


async def audio_flows(client: ApiClient, phone: RtpPeer) -> None:
    """Both ways: what we send has the phone's codec, and the phone is heard."""
    first = (await phone.packets(5))[-1]
    assert first.payload_type == PAYLOAD_TYPES[phone.codec]
    phone.remote = first.source
    await phone.speak(tone(440, 0.1, phone.rate_hz))
    await client.expect("mediaReady")


# -- we call sipp ---------------------------------------------------------------------------------


@asynccontextmanager
async def calling(exchange: Exchange, sipp: Sipp, **option: Any) -> AsyncIterator[ApiClient]:
    """The socket of a call to sipp, which then ends as a call does and leaves sipp content."""
    async with exchange.client() as client:
        await client.send("invite", option={"callee": sipp.address, **option})
        yield client
        assert await client.until_closed() == 1000
    assert client.names[0] == "trackStart"
    assert client.names[-2:] == ["trackEnd", "hangup"]
    await sipp.succeeded()


async def hang_up(client: ApiClient) -> None:
    """By command."""
    await client.send("hangup")
    await client.expect("hangup", reason="bySystem", initiator="system")


async def test_sipp_rings_and_answers(exchange: Exchange, sipp_listens: SippListens) -> None:
    async with calling(exchange, await sipp_listens("uas_rings")) as client:
        assert (await client.expect("ringing"))["earlyMedia"] is False
        await client.expect("answer")
        await client.expect("mediaReady")
        await hang_up(client)
    assert client.names[:4] == ["trackStart", "ringing", "answer", "mediaReady"]


async def test_the_description_of_a_183_holds_after_a_200_without(
    exchange: Exchange, sipp_listens: SippListens
) -> None:
    phone = await open_peer("pcma")
    try:
        sipp = await sipp_listens("uas_early_media", rtp_port=phone.address[1])
        async with calling(exchange, sipp) as client:
            assert (await client.expect("ringing"))["earlyMedia"] is True
            assert f"m=audio {phone.address[1]}" in (await client.expect("answer"))["sdp"]
            await audio_flows(client, phone)
            await hang_up(client)
    finally:
        phone.close()


async def test_two_codecs_in_an_answer_are_one_choice(exchange: Exchange, sipp_listens: SippListens) -> None:
    phone = await open_peer("pcmu")  # ours before PCMA
    try:
        async with calling(exchange, await sipp_listens("uas_two_codecs", rtp_port=phone.address[1])) as client:
            await client.expect("answer")
            await audio_flows(client, phone)
            await hang_up(client)
        assert {packet.payload_type for packet in phone.heard} == {PAYLOAD_TYPES["pcmu"]}
    finally:
        phone.close()


async def test_an_answer_of_nothing_we_know_ends_the_call(exchange: Exchange, sipp_listens: SippListens) -> None:
    async with calling(exchange, await sipp_listens("uas_foreign_codec")) as client:
        assert (await client.expect("reject"))["code"] == 488
    assert "answer" not in client.names


@pytest.mark.parametrize(("code", "phrase"), [(486, "Busy Here"), (302, "Moved Temporarily")])
async def test_a_refusal_keeps_its_code_and_phrase(
    exchange: Exchange, sipp_listens: SippListens, code: int, phrase: str
) -> None:
    async with calling(exchange, await sipp_listens(f"uas_{code}")) as client:
        reject = await client.expect("reject")
        assert (reject["code"], reject["reason"]) == (code, phrase)
        await client.expect("hangup", reason="rejected", initiator="callee")


@pytest.mark.parametrize(("suffix", "algorithm"), [("", "MD5"), ("_sha256", "SHA-256")])
@pytest.mark.parametrize("code", [401, 407])
async def test_credentials_are_given_when_asked_for(
    exchange: Exchange, sipp_listens: SippListens, code: int, suffix: str, algorithm: str
) -> None:
    sipp = await sipp_listens(f"uas_{code}{suffix}")
    async with calling(exchange, sipp, sip=CREDENTIALS) as client:
        await client.expect("mediaReady")
        await hang_up(client)
    assert client.names[:3] == ["trackStart", "answer", "mediaReady"]
    header = {401: "Authorization", 407: "Proxy-Authorization"}[code]
    invites = re.findall(r"^INVITE (?:.+\r?\n)+", sipp.messages, re.MULTILINE)
    first, second = invites
    assert not proof(first, header)
    value = proof(second, header)
    assert proves(value, CREDENTIALS["username"], CREDENTIALS["password"], "INVITE")
    given = answer(value)
    assert (given["realm"], given["qop"], given.get("algorithm", "MD5")) == ("exchange", "auth", algorithm)
    assert ["CSeq: 1 INVITE" in first, "CSeq: 2 INVITE" in second] == [True, True]
    assert same(first, second, "Call-ID", "From")


def proof(request: str, header: str) -> str:
    """The value of a header, empty when there is none."""
    found = re.search(rf"^{header}: (.*?)\r?$", request, re.MULTILINE)
    return found[1] if found else ""


def same(first: str, second: str, *names: str) -> bool:
    """Whether two messages have the same lines of these headers."""
    lines = [set(re.findall(rf"^(?:{'|'.join(names)}): .*", message, re.MULTILINE)) for message in (first, second)]
    return len(lines[0]) == len(names) and lines[0] == lines[1]


async def test_right_credentials_satisfy_sipp(exchange: Exchange, sipp_listens: SippListens) -> None:
    async with calling(exchange, await sipp_listens("uas_verifies"), sip=CREDENTIALS) as client:
        await client.expect("mediaReady")
        await hang_up(client)


async def test_wrong_credentials_are_a_refusal(exchange: Exchange, sipp_listens: SippListens) -> None:
    wrong = {**CREDENTIALS, "password": "guessed"}
    async with calling(exchange, await sipp_listens("uas_verifies"), sip=wrong) as client:
        assert (await client.expect("reject"))["code"] == 403


async def test_a_second_challenge_is_a_refusal(exchange: Exchange, sipp_listens: SippListens) -> None:
    async with calling(exchange, await sipp_listens("uas_challenges_twice"), sip=CREDENTIALS) as client:
        assert (await client.expect("reject"))["code"] == 401


async def test_a_challenge_without_credentials_is_a_refusal(exchange: Exchange, sipp_listens: SippListens) -> None:
    async with calling(exchange, await sipp_listens("uas_401_only")) as client:
        assert (await client.expect("reject"))["code"] == 401


async def test_hanging_up_while_it_rings_cancels(exchange: Exchange, sipp_listens: SippListens) -> None:
    async with calling(exchange, await sipp_listens("uas_is_cancelled")) as client:
        await client.expect("ringing")
        await client.send("hangup", reason="changed my mind")
        await client.expect("hangup", reason="changed my mind")
    assert client.names == ["trackStart", "ringing", "trackEnd", "hangup"]


async def test_the_callee_hangs_up(exchange: Exchange, sipp_listens: SippListens) -> None:
    async with calling(exchange, await sipp_listens("uas_bye")) as client:
        await client.expect("answer")
        await client.expect("hangup", reason="byCallee", initiator="callee")


async def test_ack_and_bye_follow_the_recorded_route(exchange: Exchange, sipp_listens: SippListens) -> None:
    async with calling(exchange, await sipp_listens("uas_behind_proxies")) as client:
        await client.expect("mediaReady")
        await hang_up(client)
