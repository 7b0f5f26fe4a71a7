"""The parties of a conformance test: the client's socket, and SIP phones with a voice and ears.

`client()` opens a socket and holds every event of it against `strict`. `inbound()` and `outbound()` give a `Call`: a
scripted phone (tests/peers/phone.py) with RTP (tests/peers/rtp.py) on one side, the client on the other.
"""

import asyncio
import base64
import re
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.conformance.strict import assert_strict
from tests.ensemble import Exchange
from tests.harness import eventually
from tests.peers.client import ApiClient
from tests.peers.phone import Dialog, HeaderList, Message, Phone, sdp
from tests.peers.rtp import Pcm, RtpPeer, open_peer, tone

SOON_S = 15.0
"""Long enough for a busy machine to do what takes milliseconds."""
SPOKEN_S = 40.0
"""Long enough for a busy machine to synthesise or recognise a sentence."""
CODECS = {"pcmu": "0 PCMU/8000", "pcma": "8 PCMA/8000", "g722": "9 G722/8000"}
TELEPHONE_EVENT = "101 telephone-event/8000"
SERVER = "server-side-track"
LEVEL = 0.03
"""The amplitude, of full scale, from which on a tone is heard."""
_UNTOLD = ("metrics", "ping", "mediaReady", "speaking", "silence", "asrDelta", "asrFinal")


class Client(ApiClient):
    """A client's socket."""

    call_id: str = ""
    """The session id, once an event has told it."""

    @property
    def story(self) -> str:
        """The events so far in the short form of protocol section 4, without those that depend on audio and time.

        `T(main)` and `E(srv,p)` are trackStart and trackEnd, others as `ringing{refer}` or `hangup{byCaller,caller}`.
        """
        return " ".join(_token(event, self.main) for event in self.events if event["event"] not in _UNTOLD)

    @property
    def main(self) -> str:
        """The id of the main track."""
        return self.call_id or next(
            (e["trackId"] for e in self.events if e["event"] in ("incoming", "trackStart", "reject", "error")), ""
        )

    def of(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The events of a name so far, with these values."""
        return [e for e in self.events if e["event"] == name and all(e.get(k) == v for k, v in fields.items())]

    async def ended(self, story: str, timeout_s: float = SOON_S) -> None:
        """The server closes with 1000 after the last event, and the whole story matches this expression."""
        assert await self.until_closed(timeout_s) == 1000
        assert re.fullmatch(story, self.story), self.story
        assert_balanced(self.events)

    async def told(self, story: str, timeout_s: float = SOON_S) -> None:
        """The story so far comes to match this expression."""
        await eventually(lambda: re.fullmatch(story, self.story), timeout_s, what=f"{story} in {self.story}")


def _token(event: dict[str, Any], main: str) -> str:
    name = event["event"]
    if name in ("trackStart", "trackEnd"):
        place = "main" if event["trackId"] == main else "srv"
        play_id = [event["playId"]] if "playId" in event else []
        return f"{'T' if name == 'trackStart' else 'E'}({','.join([place, *play_id])})"
    facts = [
        *(["refer"] if event.get("refer") else []),
        *([str(event["code"])] if name == "reject" and "code" in event else []),
        *([event["playId"]] if name == "interruption" and "playId" in event else []),
        *([event["reason"], event["initiator"]] if name == "hangup" else []),
        *([event["sender"]] if name == "error" else []),
    ]
    return f"{name}{{{','.join(facts)}}}" if facts else str(name)


def assert_balanced(events: Sequence[dict[str, Any]]) -> None:
    """One trackEnd per trackStart, and the hangup of the main track is the last event."""
    tracks = {
        kind: [(e["trackId"], e.get("playId")) for e in events if e["event"] == kind]
        for kind in ("trackStart", "trackEnd")
    }
    assert sorted(map(str, tracks["trackStart"])) == sorted(map(str, tracks["trackEnd"])), tracks
    hangups = [index for index, event in enumerate(events) if event["event"] == "hangup" and not event["refer"]]
    assert hangups == [len(events) - 1], [event["event"] for event in events]


@asynccontextmanager
async def client(
    exchange: Exchange, call_id: str | None = None, *, path: str = "/call/sip", **query: str
) -> AsyncIterator[Client]:
    """A socket; after the block every event that it got is held against the types of the protocol."""
    base = exchange.http.replace("http://", "ws://")
    async with Client.connect(base, path, call_id, headers=None, **query) as socket:
        assert isinstance(socket, Client)
        socket.call_id = call_id or ""
        yield socket
    for event in socket.events:
        assert_strict(event)


@dataclass
class Call:
    """A phone and a client with dialbus between them."""

    exchange: Exchange
    client: Client
    phone: Phone
    rtp: RtpPeer
    dialog_: Dialog | None = None
    body: dict[str, Any] = field(default_factory=dict)
    """What the webhook got."""
    incoming: dict[str, Any] = field(default_factory=dict)

    @property
    def dialog(self) -> Dialog:
        """The phone's dialog."""
        assert self.dialog_ is not None
        return self.dialog_

    def description(self, **changes: Any) -> str:
        """The phone's SDP."""
        return description(self.rtp, **changes)

    async def accept(self, **option: Any) -> dict[str, Any]:
        """The client takes the call, the phone acknowledges; the client's `answer`."""
        await self.client.send("accept", option=option)
        answer = await self.client.expect("answer", SOON_S)
        await self.answered()
        return answer

    async def answered(self) -> Message:
        """The phone gets the 200 to its INVITE and acknowledges it."""
        ok = await self.dialog.expect_response(200, SOON_S)
        self.dialog.ack()
        self.rtp.remote = media_of(ok.text)
        return ok

    async def invite(self, **option: Any) -> Dialog:
        """The client calls the phone; its dialog, not yet answered."""
        await self.client.send("invite", option={"callee": self.phone.uri, **option})
        self.dialog_ = await self.phone.expect_call(SOON_S)
        return self.dialog_

    async def answer(self, **changes: Any) -> dict[str, Any]:
        """The phone takes the call; the client's `answer`."""
        assert self.dialog.invite is not None
        self.rtp.remote = media_of(self.dialog.invite.text)
        self.dialog.answer(self.description(**changes))
        await self.dialog.expect_request("ACK", SOON_S)
        return await self.client.expect("answer", SOON_S)

    async def up(self, **option: Any) -> dict[str, Any]:
        """A call to the phone, answered."""
        await self.invite(**option)
        return await self.answer()

    async def hang_up(self) -> None:
        """The phone hangs up."""
        self.dialog.bye()
        await self.dialog.expect_response(200, SOON_S, method="BYE")

    async def released(self) -> Message:
        """The client hangs up; the BYE."""
        await self.client.send("hangup")
        return await self.dialog.expect_bye(SOON_S)

    async def say_tone(self, frequency_hz: float, seconds: float, **fields: Any) -> None:
        """The client plays a tone as base64 audio."""
        await self.client.send("tts", text=tone_text(frequency_hz, seconds), base64=True, **fields)

    # -- ears -------------------------------------------------------------------------------------

    def level(self, frequency_hz: float) -> float:
        """How loud the phone hears a tone now."""
        return level(self.rtp, frequency_hz)

    async def hears(self, *frequencies_hz: float, timeout_s: float = SOON_S) -> None:
        """The phone comes to hear all these tones at once."""
        await hears(self.rtp, *frequencies_hz, timeout_s=timeout_s)

    async def does_not_hear(self, frequency_hz: float, timeout_s: float = SOON_S) -> None:
        """The phone comes to hear this tone no more."""
        await eventually(lambda: self.level(frequency_hz) < LEVEL / 3, timeout_s, what=f"no {frequency_hz} Hz")

    @asynccontextmanager
    async def speaking(self, pcm: Pcm | float) -> AsyncIterator[None]:
        """The phone says this (a number is the frequency of a tone) over and over while the block runs."""
        async with speaking(self.rtp, pcm):
            yield


@asynccontextmanager
async def speaking(rtp: RtpPeer, pcm: Pcm | float) -> AsyncIterator[None]:
    """A peer says this over and over while the block runs."""
    sound = tone(pcm, 1.0, rtp.rate_hz, 0.3) if isinstance(pcm, int | float) else pcm

    async def speak() -> None:
        while True:
            await rtp.speak(sound)

    task = asyncio.create_task(speak())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def recent(rtp: RtpPeer, seconds: float = 0.3) -> Pcm:
    """What a peer heard in the last moment; nothing when it heard nothing."""
    after = asyncio.get_running_loop().time() - seconds
    packets = [packet for packet in rtp.heard[-round(seconds * 60) :] if packet.at > after]
    return RtpPeer.audio(type(rtp)(rtp.codec, heard=packets)) if packets else np.zeros(0, np.int16)


def amplitude(pcm: Pcm, rate_hz: int, frequency_hz: float) -> float:
    """Amplitude of a frequency, of full scale."""
    if not len(pcm):
        return 0.0
    turns = np.exp(-2j * np.pi * frequency_hz * np.arange(len(pcm)) / rate_hz)
    return float(2 * abs(np.dot(pcm.astype(np.float64), turns)) / len(pcm) / 32768)


def level(rtp: RtpPeer, frequency_hz: float) -> float:
    """How loud a peer hears a tone now."""
    return amplitude(recent(rtp), rtp.rate_hz, frequency_hz)


async def hears(rtp: RtpPeer, *frequencies_hz: float, timeout_s: float = SOON_S) -> None:
    """A peer comes to hear all these tones at once."""
    await eventually(
        lambda: all(level(rtp, frequency) > LEVEL for frequency in frequencies_hz),
        timeout_s,
        what=f"{frequencies_hz} Hz heard",
    )


def tone_text(frequency_hz: float, seconds: float) -> str:
    """A tone as `base64` of `tts` has it: s16le at 16 kHz."""
    return base64.b64encode(tone(frequency_hz, seconds, 16000, 0.3).tobytes()).decode()


def description(rtp: RtpPeer, *, codecs: Sequence[str] = (), **changes: Any) -> str:
    """An SDP that names a peer's address and codec."""
    host, port = rtp.address
    return sdp(host, port, codecs=codecs or (CODECS[rtp.codec], TELEPHONE_EVENT), **changes)


def media_of(text: str) -> tuple[str, int]:
    """The address that an SDP names."""
    host = re.search(r"c=IN IP4 (\S+)", text)
    port = re.search(r"m=audio (\d+)", text)
    assert host is not None, text
    assert port is not None, text
    return host[1], int(port[1])


@asynccontextmanager
async def inbound(
    exchange: Exchange,
    *,
    codec: str = "pcmu",
    headers: HeaderList = (),
    number: str = "",
    query: dict[str, str] | None = None,
    **call: Any,
) -> AsyncIterator[Call]:
    """A phone calls, and a client has the pending call."""
    number = number or exchange.number()
    async with ringing_phone(exchange, number, codec=codec, headers=headers, **call) as (phone, rtp, dialog):
        body = await exchange.announcement(number)
        async with client(exchange, body["dialogId"], **(query or {})) as socket:
            incoming = await socket.expect("incoming", SOON_S)
            yield Call(exchange, socket, phone, rtp, dialog, body, incoming)


@asynccontextmanager
async def ringing_phone(
    exchange: Exchange, number: str, *, codec: str = "pcmu", headers: HeaderList = (), **call: Any
) -> AsyncIterator[tuple[Phone, RtpPeer, Dialog]]:
    """A phone that has sent its INVITE."""
    async with Phone.open() as phone:
        rtp = await open_peer(codec)
        try:
            call.setdefault("sdp", description(rtp))
            yield phone, rtp, phone.call(exchange.address(number), headers=headers, retransmits=True, **call)
        finally:
            rtp.close()


@asynccontextmanager
async def outbound(
    exchange: Exchange, *, codec: str = "pcmu", call_id: str | None = None, path: str = "/call/sip", **query: str
) -> AsyncIterator[Call]:
    """A client with an idle socket, and a phone to call."""
    async with Phone.open() as phone, client(exchange, call_id, path=path, **query) as socket:
        rtp = await open_peer(codec)
        try:
            yield Call(exchange, socket, phone, rtp)
        finally:
            rtp.close()


@asynccontextmanager
async def second_phone(codec: str = "pcmu") -> AsyncIterator[tuple[Phone, RtpPeer]]:
    """Another phone, as the target of a transfer."""
    async with Phone.open() as phone:
        rtp = await open_peer(codec)
        try:
            yield phone, rtp
        finally:
            rtp.close()


def fresh_id() -> str:
    """A session id of the test's own."""
    return f"t{secrets.token_hex(6)}"


class Background:
    """An event loop of its own for scenarios that last longer than a test may."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._running: dict[str, Any] = {}

    def start(self, name: str, scenario: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Begin a scenario."""
        self._running[name] = asyncio.run_coroutine_threadsafe(scenario(), self._loop)

    async def outcome(self, name: str) -> Any:
        """What a scenario returned, once it has; what it raised is raised here."""
        return await asyncio.wrap_future(self._running[name])

    def close(self) -> None:
        """Give up what still runs."""
        for future in self._running.values():
            future.cancel()

        async def settle() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(settle(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
