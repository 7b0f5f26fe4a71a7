"""WebRTC legs of a real media worker, called by aiortc, which shares no line with them but libopus and aioice."""

import re
import wave
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from dialbus.bus import Bus, Refused
from dialbus.contracts.media import AddCandidate, AllocateLeg, LegLost, PlaybackEnded
from tests.contract.media.conftest import SERVER, Call, Dial, FakeTts
from tests.harness import ServiceProcess, eventually, next_message, requests_to
from tests.peers import webrtc
from tests.peers.rtp import loud, open_peer, tone
from tests.peers.webrtc import WebRtcPeer, webrtc_peer


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[WebRtcPeer]:
    async with webrtc_peer() as peer:
        yield peer


@pytest_asyncio.fixture
async def allocate(bus: Bus, media: ServiceProcess, call_id: str) -> AsyncIterator[Dial]:
    """`await allocate(offer, …)` takes a WebRTC leg; what AllocateLeg says may be changed."""
    calls: list[Call] = []

    async def place(offer: str, **changes: object) -> Call:
        name = f"{call_id}-{len(calls)}"
        request = AllocateLeg(call_id=name, kind="webrtc", main_track=name, server_track=SERVER, offer=offer)
        allocated = await bus.request(request.model_copy(update=changes), timeout_s=5.0)
        call = Call(bus, name, await open_peer(), allocated)
        call.ended = await requests_to(bus, PlaybackEnded, call_id=name)
        call.lost = await requests_to(bus, LegLost, call_id=name)
        call.listen()
        calls.append(call)
        return call

    yield place
    for call in calls:
        await call.stop()


def recorded(media_env: dict[str, str], call: Call) -> np.ndarray:
    with wave.open(str(Path(media_env["DIALBUS_RECORDER_PATH"]) / f"{call.call_id}.wav")) as file:
        assert file.getframerate() == 16000
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


@pytest.mark.parametrize(("codec", "rate_hz"), [("opus", 16000), ("pcmu", 8000), ("pcma", 8000), ("g722", 16000)])
async def test_audio_both_ways_and_keys(
    bus: Bus, peer: WebRtcPeer, allocate: Dial, media_env: dict[str, str], codec: str, rate_hz: int
) -> None:
    tts = await FakeTts(bus, lambda _, rate_hz: tone(700, 1.0, rate_hz)).start()
    call = await allocate(await peer.offer(codec))
    await call.configure(recorder={"samplerate": 16000})
    await call.do("tts", text="said before the handshake is over, heard from its first word")
    peer.say(440, 1.0)

    await peer.answer(call.allocated.sdp)
    await call.until("mediaReady")
    await peer.press("7")
    assert (await call.until("dtmf"))["digit"] == "7"
    await call.until("trackEnd")
    await eventually(lambda: loud(peer.audio(), peer.heard_rate_hz or 8000)[0] > 0.9, what="seconds of tone heard")
    await call.close()

    assert tts.asked[0].rate_hz == rate_hz
    assert [event["event"] for event in call.events if event["event"] in ("mediaReady", "dtmf")] == [
        "mediaReady",
        "dtmf",
    ]
    seconds, frequency = loud(peer.audio(), peer.heard_rate_hz)
    assert seconds == pytest.approx(1.0, abs=0.11)
    assert frequency == pytest.approx(700, abs=2)
    sides = recorded(media_env, call)
    seconds, frequency = loud(sides[:, 0], 16000)
    assert seconds == pytest.approx(1.0, abs=0.15)
    assert frequency == pytest.approx(440, abs=2)
    assert f"a=ssrc:{call.allocated.ssrc} " in call.allocated.sdp
    assert call.events[-1]["ssrc"] == call.allocated.ssrc


async def test_the_answer_is_one_audio_line_with_what_was_chosen(peer: WebRtcPeer, allocate: Dial) -> None:
    offer = await peer.offer("pcma", "opus")
    video = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=mid:7\r\n"
    call = await allocate(offer + video)

    sdp = call.allocated.sdp
    assert "\n" not in sdp.replace("\r\n", "")
    assert [line for line in sdp.split("\r\n") if line.startswith("m=")] == [
        re.findall(r"m=audio .*", sdp)[0].rstrip(), "m=video 0 UDP/TLS/RTP/SAVPF 96",
    ]  # fmt: skip
    assert re.findall(r"a=rtpmap:\S+ (\S+)", sdp) == ["PCMA/8000", "telephone-event/48000"]
    assert "a=setup:active" in sdp
    assert "a=rtcp-mux" in sdp
    assert "a=end-of-candidates" in sdp
    assert webrtc.addresses(sdp) == [("host", "127.0.0.1")]
    assert 12000 <= int(re.findall(r" 127\.0\.0\.1 (\d+) typ host", sdp)[0]) <= 42000
    assert (call.allocated.address, call.allocated.port) == ("", 0)


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda sdp: "", 400),
        (lambda sdp: "not sdp at all", 400),
        (lambda sdp: sdp.replace("a=ice-ufrag", "a=x-ufrag"), 400),
        (lambda sdp: re.sub("a=fingerprint:sha-256 ..", "a=fingerprint:sha-256 XX", sdp), 400),
        (lambda sdp: sdp.replace("a=setup:actpass", "a=setup:holdconn"), 400),
        (lambda sdp: sdp + "x" * 70000, 400),
        (lambda sdp: re.sub("m=audio .*", "m=audio 9 UDP/TLS/RTP/SAVPF 18", sdp), 488),
        (lambda sdp: sdp.replace("m=audio", "m=video"), 488),
        (lambda sdp: sdp.replace("a=rtcp-mux\r\n", ""), 488),
        (lambda sdp: sdp.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), 488),
    ],
)
async def test_an_offer_that_cannot_be_used_is_refused(
    peer: WebRtcPeer, allocate: Dial, edit: Callable[[str], str], code: int
) -> None:
    offer = await peer.offer("opus")

    with pytest.raises(Refused) as refusal:
        await allocate(edit(offer))

    assert refusal.value.code == code


@pytest.mark.parametrize("codec", ["opus", "pcmu"])
async def test_an_offer_of_one_codec_without_keys_is_enough(peer: WebRtcPeer, allocate: Dial, codec: str) -> None:
    call = await allocate(await peer.offer(codec, telephone_event=None))

    await peer.answer(call.allocated.sdp)
    await call.until("mediaReady")

    assert "telephone-event" not in call.allocated.sdp


@pytest.mark.parametrize("style", ["{}", "a={}", "{short}"])
async def test_candidates_may_come_later(bus: Bus, peer: WebRtcPeer, allocate: Dial, style: str) -> None:
    offer = await peer.offer("pcmu")
    call = await allocate(webrtc.without_candidates(offer))

    for line in webrtc.candidates(offer):
        text = style.format(line, short=line.removeprefix("candidate:"))
        await bus.request(AddCandidate(call_id=call.call_id, candidate=text, sdp_mid="0"))
    await bus.request(AddCandidate(call_id=call.call_id, candidate=""))
    await peer.answer(call.allocated.sdp)

    await call.until("mediaReady")


async def test_a_bad_candidate_is_refused_and_a_useless_one_ignored(bus: Bus, peer: WebRtcPeer, allocate: Dial) -> None:
    call = await allocate(await peer.offer("pcmu"))

    for text in (
        "nonsense",
        "candidate:1 1 udp 1 127.0.0.1 99999 typ host",
        "candidate:1 1 udp 1 999.1.1.1 9 typ host",
    ):
        with pytest.raises(Refused) as refusal:
            await bus.request(AddCandidate(call_id=call.call_id, candidate=text))
        assert refusal.value.code == 400
    for text in (
        "candidate:1 1 udp 2113937151 0a6c1f3e-8f4d-4c5e-9d0c-1234567890ab.local 50000 typ host",
        "candidate:1 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active",
        "candidate:1 1 udp 1 ::1 50000 typ host",
        "end-of-candidates",
        "candidate:1 1 udp 1 127.0.0.1 50000 typ host",  # after the end
    ):
        await bus.request(AddCandidate(call_id=call.call_id, candidate=text))
    await peer.answer(call.allocated.sdp)
    await call.until("mediaReady")


async def test_a_candidate_is_nothing_to_a_leg_of_another_kind(bus: Bus, dial: Dial) -> None:
    call = await dial()

    with pytest.raises(Refused) as refusal:
        await bus.request(AddCandidate(call_id=call.call_id, candidate=""))

    assert refusal.value.code == 409


async def test_a_peer_that_never_comes_is_lost_in_time(peer: WebRtcPeer, allocate: Dial) -> None:
    call = await allocate(await peer.offer("opus"), handshake_timeout_s=1.0)

    lost = await next_message(call.lost)

    assert (lost.leg_id, lost.reason, lost.hung_up) == ("main", "ICE did not connect within 1 s", False)
    assert not call.events


async def test_a_peer_with_another_certificate_is_not_spoken_to(peer: WebRtcPeer, allocate: Dial) -> None:
    offer = await peer.offer("opus")
    digest = re.findall(r"a=fingerprint:sha-256 (\S+)", offer)[0]
    call = await allocate(offer.replace(digest, f"{digest[3:]}:{digest[:2]}"))

    await peer.answer(call.allocated.sdp)

    assert "fingerprint" in (await next_message(call.lost)).reason
    assert not call.events


async def test_a_peer_that_hangs_up_is_lost(peer: WebRtcPeer, allocate: Dial) -> None:
    call = await allocate(await peer.offer("opus"))
    await peer.answer(call.allocated.sdp)
    await call.until("mediaReady")

    await peer.close()

    lost = await next_message(call.lost)
    assert (lost.reason, lost.hung_up) == ("the peer closed the connection", True)


async def test_closing_the_leg_says_goodbye(peer: WebRtcPeer, allocate: Dial) -> None:
    call = await allocate(await peer.offer("opus"))
    await peer.answer(call.allocated.sdp)
    await call.until("mediaReady")

    await call.close()

    await eventually(lambda: peer.connection.connectionState in ("closed", "failed"), what="the peer")
    assert call.lost.empty()


async def test_a_passive_part_is_taken_when_the_offer_wants_to_open_dtls(peer: WebRtcPeer, allocate: Dial) -> None:
    offer = await peer.offer("pcmu")
    call = await allocate(offer.replace("a=setup:actpass", "a=setup:active"))
    assert "a=setup:passive" in call.allocated.sdp

    await peer.answer(call.allocated.sdp)

    await call.until("mediaReady")
