"""Audio on client sockets: `/call`, `subscribe`, mediaPass (P-03, P-51, P-116 to P-119, O9, O28)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from media.audio.codec import make_codec
from tests.conformance.files import recording, tones_in
from tests.conformance.parties import (
    LEVEL,
    SOON_S,
    Client,
    amplitude,
    client,
    description,
    fresh_id,
    hears,
    inbound,
    media_of,
    outbound,
    second_phone,
    speaking,
    tone_text,
)
from tests.conformance.test_transfer import pick_up, refer
from tests.ensemble import VOICES, Exchange
from tests.harness import eventually
from tests.peers.rtp import Pcm, tone, voice

FRAME_S = 0.02


def pcm_of(frames: list[bytes]) -> Pcm:
    """s16le frames as samples."""
    return np.frombuffer(b"".join(frames), "<i2").astype(np.int16)


async def frames_hold(frames: list[bytes], frequency_hz: float, rate_hz: int = 16000, last: int = 15) -> None:
    """The last frames come to hold this tone."""
    await eventually(
        lambda: amplitude(pcm_of(frames[-last:]), rate_hz, frequency_hz) > LEVEL, SOON_S, what=f"{frequency_hz} Hz"
    )


@asynccontextmanager
async def sending(socket: Client, data: bytes, size: int) -> AsyncIterator[None]:
    """Audio goes to the server, a frame of `size` bytes each 20 ms, over and over."""

    async def send() -> None:
        loop = asyncio.get_running_loop()
        start, sent = loop.time(), 0
        while True:
            at = sent * size % (len(data) - size)
            await socket.send_text(data[at : at + size])
            sent += 1
            await asyncio.sleep(max(0.0, start + sent * FRAME_S - loop.time()))

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.row("P-03", "P-116", "O9", "P-51", "P-101", "P-13")
@pytest.mark.fault("X-24")
async def test_p116_a_call_over_the_socket_alone(exchange: Exchange) -> None:
    async with client(exchange, fresh_id(), path="/call") as socket:
        await socket.send("invite", option={"recorder": {}})
        answer = await socket.expect("answer", SOON_S)
        assert answer["sdp"] == ""
        async with sending(socket, tone(500, 1.0, 16000, 0.3).tobytes(), 640):
            await socket.send("tts", text=tone_text(700, 1.0), base64=True, playId="p", endOfStream=True)
            await socket.expect("trackEnd", SOON_S, playId="p")
        assert all(len(frame) == 640 for frame in socket.binary), "16 kHz both ways, a message per 20 ms"
        assert 45 <= len(socket.binary) <= 75, "only while there is something to hear"
        assert amplitude(pcm_of(socket.binary[5:40]), 16000, 700) > LEVEL
        await socket.send("hangup")
        await socket.ended(r"T\(main\) answer T\(srv,p\) E\(srv,p\) E\(main\) hangup\{bySystem,system\}")
    both, rate_hz = await recording(exchange, socket.call_id)
    assert tones_in(both[:, 0], rate_hz, 500)
    assert tones_in(both[:, 1], rate_hz, 700)


@pytest.mark.row("P-116", "P-86")
async def test_p116_what_is_said_on_the_socket_is_understood(exchange: Exchange) -> None:
    async with client(exchange, fresh_id(), path="/call") as socket:
        await socket.send("invite", option={"vad": {}, "asr": {}})
        await socket.expect("answer", SOON_S)
        speech = np.concatenate((voice(VOICES / "lj.wav", 16000), np.zeros(32000, np.int16))).tobytes()
        odd = 777  # any length of message will do
        for start in range(0, len(speech), odd):
            await socket.send_text(speech[start : start + odd])  # faster than real time: it is paced
        await socket.expect("speaking", SOON_S)
        final = await socket.expect("asrFinal", 40)
        assert final["text"]
        await socket.send("hangup")
        await socket.until_closed(SOON_S)


@pytest.mark.row("P-116")
@pytest.mark.parametrize(("codec", "size", "rate_hz"), [("pcmu", 160, 8000), ("pcma", 160, 8000), ("g722", 160, 16000)])
async def test_p116_other_codecs(exchange: Exchange, codec: str, size: int, rate_hz: int) -> None:
    async with client(exchange, fresh_id(), path="/call") as socket:
        await socket.send("invite", option={"codec": codec, "recorder": {}})
        await socket.expect("answer", SOON_S)
        coder, sound = make_codec(codec), tone(500, 1.0, rate_hz, 0.3)
        frames = [coder.encode(sound[at : at + rate_hz // 50]) for at in range(0, len(sound), rate_hz // 50)]
        async with sending(socket, b"".join(frames), size):
            await socket.send("tts", text=tone_text(700, 1.0), base64=True, playId="p", endOfStream=True)
            await socket.expect("trackEnd", SOON_S, playId="p")
        assert {len(frame) for frame in socket.binary} == {size}
        decoder = make_codec(codec)
        heard = np.concatenate([decoder.decode(frame) for frame in socket.binary])
        assert amplitude(heard[rate_hz // 5 : rate_hz // 2], rate_hz, 700) > LEVEL
        await socket.send("hangup")
        await socket.until_closed(SOON_S)
    both, rate = await recording(exchange, socket.call_id)
    assert tones_in(both[:, 0], rate, 500)


@pytest.mark.row("P-116", "P-15")
async def test_p116_audio_before_the_invite_is_kept_for_a_second(exchange: Exchange) -> None:
    async with client(exchange, fresh_id(), path="/call") as socket:
        for frequency in (1500, 500):  # two seconds: the first one is dropped
            await socket.send_text(tone(frequency, 1.0, 16000, 0.3).tobytes())
        await socket.send("invite", option={"recorder": {}})
        await socket.expect("answer", SOON_S)
        await asyncio.sleep(1.5)  # the kept second is played out
        await socket.send("hangup")
        await socket.until_closed(SOON_S)
    both, rate_hz = await recording(exchange, socket.call_id)
    assert tones_in(both[:, 0], rate_hz, 500)
    assert not tones_in(both[:, 0], rate_hz, 1500)


@pytest.mark.row("P-03", "P-77")
async def test_q14_a_socket_call_is_transferred_to_a_phone(exchange: Exchange) -> None:
    async with client(exchange, fresh_id(), path="/call") as socket, second_phone() as (target, rtp):
        await socket.send("invite", option={})
        await socket.expect("answer", SOON_S)
        await socket.send("refer", callee=target.uri)
        dialog = await target.expect_call(SOON_S)
        dialog.answer(description(rtp))
        await dialog.expect_request("ACK", SOON_S)
        await socket.expect("answer", SOON_S, refer=True)
        assert dialog.invite is not None
        rtp.remote = media_of(dialog.invite.text)
        async with sending(socket, tone(500, 1.0, 16000, 0.3).tobytes(), 640), speaking(rtp, 1100):
            await hears(rtp, 500)
            await frames_hold(socket.binary, 1100)
        dialog.bye()
        await dialog.expect_response(200, SOON_S, method="BYE")
        await socket.until_closed(SOON_S)
        assert socket.story.endswith("E(main) hangup{byRefer,system}")


@pytest.mark.row("P-117", "G14")
async def test_p117_subscribe(exchange: Exchange) -> None:
    async with inbound(exchange, codec="g722") as call:
        await call.accept(subscribe=True)
        async with call.speaking(500):
            await call.say_tone(1100, 1.0, playId="p", endOfStream=True)
            await call.client.expect("trackEnd", SOON_S, playId="p")
            await eventually(lambda: sum(frame[0] == 1 for frame in call.client.binary) > 30, SOON_S)
        server = [frame[1:] for frame in call.client.binary if frame[0] == 0]
        main = [frame[1:] for frame in call.client.binary if frame[0] == 1]
        assert len(server) + len(main) == len(call.client.binary), "no other index"
        assert {len(frame) for frame in server + main} == {640}, "20 ms of 16 kHz"
        assert amplitude(pcm_of(main[-20:]), 16000, 500) > LEVEL
        assert max(amplitude(pcm_of(server[at : at + 10]), 16000, 1100) for at in range(0, len(server), 10)) > LEVEL
        assert max(amplitude(pcm_of(main[at : at + 10]), 16000, 1100) for at in range(0, len(main), 10)) < LEVEL / 3
        await call.released()


@pytest.mark.row("P-117", "P-77")
async def test_p117_the_target_of_a_transfer_is_on_the_servers_track(exchange: Exchange) -> None:
    async with inbound(exchange) as call, second_phone() as (target, rtp):
        await call.accept(subscribe=True)
        dialog = await refer(call, target)
        await pick_up(call, dialog, rtp)
        async with speaking(rtp, 1100):
            await eventually(
                lambda: amplitude(pcm_of([f[1:] for f in call.client.binary if f[0] == 0][-15:]), 16000, 1100) > LEVEL,
                SOON_S,
            )
        await call.hang_up()
        await dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)


class Peer:
    """The WebSocket server that mediaPass connects to."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.texts = 0
        self.url = ""
        self.asked: list[str] = []
        self.connections: list[ServerConnection] = []

    async def serve(self, connection: ServerConnection) -> None:
        """One connection."""
        assert connection.request is not None
        self.asked.append(connection.request.path)
        self.connections.append(connection)
        async for frame in connection:
            if isinstance(frame, bytes):
                self.frames.append(frame)


@asynccontextmanager
async def media_peer() -> AsyncIterator[Peer]:
    """A listening peer."""
    peer = Peer()
    async with serve(peer.serve, "127.0.0.1", 0) as server:
        peer.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/audio?key=1"
        yield peer


@pytest.mark.row("P-118", "O28")
@pytest.mark.fault("X-09")
async def test_p118_media_pass(exchange: Exchange) -> None:
    async with media_peer() as peer, outbound(exchange) as call:
        option: dict[str, Any] = {"url": peer.url, "inputSampleRate": 8000, "outputSampleRate": 16000}
        await call.up(mediaPass=option, vad={}, asr={})
        start = r"(T\(main\) T\(srv\)|T\(srv\) T\(main\)) answer"
        await call.client.told(start)
        query = parse_qs(urlsplit(peer.asked[0]).query)
        assert query == {"key": ["1"], "sample_rate": ["16000"], "packet_size": ["2560"]}
        async with call.speaking(500):
            await frames_hold(peer.frames, 500, 16000, last=5)
        assert {len(frame) for frame in peer.frames} == {2560}
        connection = peer.connections[0]
        sound = tone(1100, 8.0, 8000, 0.3).tobytes()
        await connection.send("a text is ignored")
        for at in range(0, len(sound), 3333):  # any size, faster than real time
            await connection.send(sound[at : at + 3333])
        await call.hears(1100)
        await call.say_tone(1700, 2.0, playId="p", endOfStream=True)  # on top; the pass stays
        await call.hears(1700, 1100)
        await call.client.expect("trackEnd", SOON_S, playId="p")
        await call.hears(1100)
        async with call.speaking(voice(VOICES / "lj.wav", 8000)):
            await call.client.expect("speaking", SOON_S)  # VAD and ASR work on
        await connection.close()
        await call.client.told(start + r" T\(srv,p\) E\(srv,p\) E\(srv\)")
        await call.say_tone(700, 1.0)
        await call.hears(700)  # the call goes on
        await call.released()
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-118")
async def test_p118_a_peer_that_is_not_there(exchange: Exchange) -> None:
    url = "ws://127.0.0.1:9/nobody"
    async with inbound(exchange) as call:
        await call.accept(mediaPass={"url": url, "inputSampleRate": 8000, "outputSampleRate": 8000, "packetSize": 320})
        error = await call.client.expect("error", SOON_S)
        assert error["sender"] == f"media_pass: {url}"
        await call.say_tone(700, 1.0)
        await call.hears(700)
        await call.released()
        await call.client.until_closed(SOON_S)
        names = call.client.names
        assert names.index("answer") < names.index("error"), "G2"


@pytest.mark.row("P-118")
async def test_p118_media_pass_on_a_call_in_with_small_packets(exchange: Exchange) -> None:
    async with media_peer() as peer, inbound(exchange) as call:
        option = {"url": peer.url, "inputSampleRate": 16000, "outputSampleRate": 8000, "packetSize": 320, "ptime": 20}
        await call.accept(mediaPass=option)
        async with call.speaking(500):
            await frames_hold(peer.frames, 500, 8000, last=15)
        assert {len(frame) for frame in peer.frames} == {320}
        await call.hang_up()
        await call.client.ended(
            r"incoming (T\(main\) T\(srv\)|T\(srv\) T\(main\)) answer E\(srv\) E\(main\) hangup\{byCaller,caller\}"
        )


@pytest.mark.row("P-119")
async def test_p119_ambiance_is_heard_and_ducks(exchange: Exchange) -> None:
    ambiance = {"path": "voices/jfk.wav", "enabled": True, "normalLevel": 0.9, "duckLevel": 0.0, "transitionSpeed": 1.0}
    async with inbound(exchange) as call:
        await call.accept(ambiance=ambiance)
        await eventually(lambda: loudness(call.rtp.audio()[-8000:]) > 200, SOON_S)
        await call.say_tone(700, 3.0, playId="p", endOfStream=True)
        await call.hears(700)
        await call.rtp.packets(len(call.rtp.heard) + 60)
        part = call.rtp.audio()[-4000:].astype(float)
        left = loudness_without(part, 700)
        assert left < 60, "nothing but the tone while we speak"
        await call.client.expect("trackEnd", SOON_S, playId="p")
        await eventually(lambda: loudness(call.rtp.audio()[-8000:]) > 200 and call.level(700) < LEVEL, SOON_S)
        await call.released()
        await call.client.until_closed(SOON_S)
        assert "T(srv)" not in call.client.story, "ambiance is no playback"


@pytest.mark.row("P-119")
async def test_p119_gain_control_makes_a_quiet_caller_understood(exchange: Exchange) -> None:
    quiet = (voice(VOICES / "lj.wav", 16000) * 0.02).astype(np.int16)
    levels = []
    for agc in (None, {"initialGainDb": 25}):
        async with inbound(exchange, codec="g722") as call:
            option: dict[str, Any] = {"vad": {"voiceThreshold": 0.3}, "recorder": {}, "subscribe": True}
            await call.accept(**option, **({"agc": agc} if agc else {}))
            await call.rtp.speak(quiet[: 16000 * 4])
            await call.released()
            await call.client.until_closed(SOON_S)
            main = pcm_of([frame[1:] for frame in call.client.binary if frame[0] == 1])
            both, _ = await recording(exchange, call.client.main)
            levels.append(max(loudness(main), loudness(both[:, 0])))
    assert levels[1] > 3 * levels[0], levels


def loudness(pcm: Pcm) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(pcm.astype(float) ** 2))) if len(pcm) else 0.0


def loudness_without(pcm: "np.ndarray[Any, np.dtype[np.float64]]", frequency_hz: float, rate_hz: int = 8000) -> float:
    """Root mean square of what is left when one tone is taken out."""
    spectrum = np.fft.rfft(pcm * np.hanning(len(pcm)))
    bins = np.fft.rfftfreq(len(pcm), 1 / rate_hz)
    spectrum[np.abs(bins - frequency_hz) < 40] = 0
    return float(np.sqrt(np.mean(np.fft.irfft(spectrum) ** 2)))


@pytest.mark.row("P-119", "G2")
async def test_p119_an_unsupported_option_is_an_error_after_the_answer(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        option = {"eou": {"type": "x"}, "ringbackDetection": {"enabled": True}, "realtime": {"provider": "openai"}}
        await call.up(**option)
        wanted = {"eou", "ringbackDetection", "realtime"}
        await eventually(lambda: {event["sender"] for event in call.client.of("error")} == wanted, SOON_S)
        assert {event["code"] for event in call.client.of("error")} == {404}
        assert call.client.names.index("answer") < call.client.names.index("error")
        await call.say_tone(700, 1.0)
        await call.hears(700)
        await call.released()
