"""Media doors: whom an SDP can make us send to, and who can take a silent phone's media over.

127.0.0.2 is the caller, 127.0.0.3 a host that never asked for anything, 127.0.0.4 a stranger who found our port.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.ensemble import Exchange, read_wav, running
from tests.peers.client import ApiClient
from tests.peers.phone import Dialog, Phone
from tests.peers.rtp import RtpPeer, open_peer, strength, tone

CALLER, VICTIM, STRANGER = "127.0.0.2", "127.0.0.3", "127.0.0.4"
LJ = "voices/lj.wav"
"""5.5 s: longer than the window in which a source may be learnt, and than the interval of RTCP."""


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """`dialbus run` on free ports."""
    with running(tmp_path_factory.mktemp("media-doors")) as exchange:
        yield exchange


@dataclass(slots=True)
class Call:
    """An answered call from 127.0.0.2, not acknowledged yet."""

    call_id: str
    dialog: Dialog
    client: ApiClient
    media: tuple[str, int]
    """Where the exchange takes RTP."""

    async def play(self, url: str, play_id: str) -> None:
        """Play it to its end."""
        await self.client.send("play", url=url, playId=play_id)
        await self.client.expect("trackEnd", playId=play_id, timeout_s=30)

    async def hang_up(self) -> None:
        """End it, with the last word of media."""
        await self.client.send("hangup")
        await self.client.expect("hangup", timeout_s=30)


@asynccontextmanager
async def answered(ensemble: Exchange, media: tuple[str, int]) -> AsyncIterator[Call]:
    """A call whose SDP says that media goes to `media`."""
    number = ensemble.number()
    async with Phone.open(CALLER) as phone:
        sdp = re.sub(r"m=audio \d+", f"m=audio {media[1]}", phone.sdp(connection=media[0]))
        dialog = phone.call(ensemble.address(number), sdp=sdp)
        call_id = (await ensemble.announcement(number))["dialogId"]
        async with ensemble.client(call_id) as client:
            await client.send("accept", option={"recorder": {}})
            ok = await dialog.expect_response(200)
            await client.expect("answer")
            port = re.search(r"m=audio (\d+)", ok.text)
            assert port is not None
            yield Call(call_id, dialog, client, ("127.0.0.1", int(port[1])))


@pytest.fixture
async def peers() -> AsyncIterator[dict[str, RtpPeer]]:
    """RTP sockets at each of the hosts."""
    opened = {host: await open_peer(host=host) for host in (CALLER, VICTIM, STRANGER)}
    yield opened
    for peer in opened.values():
        peer.close()


def datagrams(peer: RtpPeer) -> int:
    """RTP and RTCP that came to it."""
    return len(peer.heard) + len(peer.control)


async def test_an_invite_without_ack_makes_nobody_else_a_target(ensemble: Exchange, peers: dict[str, RtpPeer]) -> None:
    """Neither audio nor RTCP, not even the goodbye."""
    victim = peers[VICTIM]
    async with answered(ensemble, victim.address) as call:
        await call.play(LJ, "long")
        await call.hang_up()

    assert datagrams(victim) == 0


async def test_an_acknowledged_caller_behind_a_border_controller_hears(
    ensemble: Exchange, peers: dict[str, RtpPeer]
) -> None:
    """Its media is at another host than its signalling, as is usual there."""
    async with answered(ensemble, peers[VICTIM].address) as call:
        call.dialog.ack()
        await peers[VICTIM].packets(20)
        await call.hang_up()


async def test_a_host_that_sends_by_itself_hears_before_the_ack(ensemble: Exchange, peers: dict[str, RtpPeer]) -> None:
    border_controller = peers[VICTIM]
    async with answered(ensemble, border_controller.address) as call:
        border_controller.remote = call.media
        async with border_controller.humming(500):
            await border_controller.packets(20)
        await call.hang_up()


async def test_a_caller_behind_a_nat_is_heard_and_hears(ensemble: Exchange, peers: dict[str, RtpPeer]) -> None:
    """Its SDP names an address of its own network; its media comes from the host of its signalling."""
    async with answered(ensemble, (VICTIM, 9)) as call:
        phone = peers[CALLER]
        phone.remote = call.media
        async with phone.humming(500):
            await phone.packets(20)
        await call.hang_up()

    assert loudness(ensemble, call, 500) > 0.1


@pytest.mark.parametrize("first", ["", LJ], ids=["at once", "after 5 s"])
async def test_a_silent_phones_media_cannot_be_taken_over(
    ensemble: Exchange, peers: dict[str, RtpPeer], first: str
) -> None:
    """A second of well-formed RTP from elsewhere: not heard, and nothing is sent there."""
    phone, stranger = peers[CALLER], peers[STRANGER]
    async with answered(ensemble, phone.address) as call:
        call.dialog.ack()
        if first:
            await call.play(first, "first")
        stranger.remote = call.media
        await stranger.speak(tone(900, 1.0, 8000))
        heard = len(phone.heard)
        await call.play(LJ, "second")
        assert len(phone.heard) > heard + 200, "the phone hears all of it"
        await call.hang_up()

    assert datagrams(stranger) == 0
    assert loudness(ensemble, call, 900) < 0.001


def loudness(ensemble: Exchange, call: Call, frequency_hz: float) -> float:
    """The largest amplitude of a tone in a second of what was recorded of the caller."""
    both, rate_hz = read_wav(ensemble.recordings / f"{call.call_id}.wav")
    left = both[:, 0]
    return max(strength(left[at : at + rate_hz], rate_hz, frequency_hz) for at in range(0, len(left), rate_hz // 2))
