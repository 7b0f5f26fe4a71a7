"""A leg's RTP endpoint on real sockets: ports, whom it believes, where it sends."""

import socket
from collections.abc import Iterator

import numpy as np
import pytest

from dialbus.contracts.media import RemoteMedia
from media.audio.codec import OpusCodec
from media.endpoint.rtp import RtpEndpoint
from media.endpoint.rtp_sockets import NoPort, Sockets, local_address, open_sockets
from media.rtp import dtmf, packet, rtcp
from media.rtp.jitter import IDLE
from media.rtp.source import MediaSource

FRAME = bytes(range(160))


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    opened = open_sockets("127.0.0.1", 0, 0)
    yield opened
    opened.close()


@pytest.fixture
def phone() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(2)
        yield phone


def _endpoint(sockets: Sockets) -> RtpEndpoint:
    return RtpEndpoint(sockets, MediaSource(latching=True), ssrc=0xABCD, sequence=7, timestamp=1000)


def _remote(phone: socket.socket, **changes: object) -> RemoteMedia:
    host, port = phone.getsockname()
    plain = RemoteMedia(address=host, port=port, codec="pcmu", payload_type=0, telephone_event_pt=101)
    return plain.model_copy(update=changes)


def _rtp(sequence: int, *, payload_type: int = 0, payload: bytes = FRAME, timestamp: int | None = None) -> bytes:
    at = sequence * 160 if timestamp is None else timestamp
    return packet.pack(packet.RtpPacket(payload_type, False, sequence, at, 77, payload))


def _drain(endpoint: RtpEndpoint, now: float, until: int) -> list[str]:
    """Drain until so many packets were accepted or ignored: loopback delivers at once, in order."""
    digits: list[str] = []
    for _ in range(1000):
        digits += endpoint.drain(now)
        if endpoint.accepted + sum(endpoint.ignored().values()) >= until:
            break
    return digits


def test_ports_are_an_even_one_and_the_next() -> None:
    with_range = open_sockets("127.0.0.1", 21001, 29999)
    assert with_range.port % 2 == 0
    assert 21002 <= with_range.port <= 29998
    assert with_range.rtcp.getsockname()[1] == with_range.port + 1
    with_range.close()


def test_taken_ports_are_passed_over_and_an_empty_range_is_said() -> None:
    first = open_sockets("127.0.0.1", 0, 0)
    port = first.port
    with pytest.raises(NoPort):
        open_sockets("127.0.0.1", port, port + 1)
    with pytest.raises(NoPort):
        open_sockets("127.0.0.1", port + 1, port + 1)
    first.close()
    again = open_sockets("127.0.0.1", port, port + 1)
    assert again.port == port
    again.close()


@pytest.mark.parametrize(
    ("bind_ip", "external_ip", "remote_host", "expected"),
    [
        ("127.0.0.5", "192.0.2.1", "127.0.0.1", "192.0.2.1"),
        ("127.0.0.5", None, "127.0.0.1", "127.0.0.5"),
        ("0.0.0.0", None, "127.0.0.1", "127.0.0.1"),
        (None, None, None, "127.0.0.1"),
    ],
)
def test_the_address_told_to_the_remote_party(
    bind_ip: str, external_ip: str | None, remote_host: str | None, expected: str
) -> None:
    assert local_address(bind_ip, external_ip, remote_host) == expected


def test_audio_goes_both_ways(sockets: Sockets, phone: socket.socket) -> None:
    endpoint = _endpoint(sockets)
    assert not endpoint.sends
    assert endpoint.connect(_remote(phone), 0.0)
    assert endpoint.sends

    for sequence in range(4):
        phone.sendto(_rtp(sequence), ("127.0.0.1", sockets.port))
        _drain(endpoint, sequence * 0.02, sequence + 1)
    assert FRAME in [endpoint.next_payload(0.06 + tick * 0.02) for tick in range(3)]
    endpoint.send(FRAME)
    sent = packet.parse(phone.recv(2000))

    assert sent == packet.RtpPacket(0, True, 7, 1000, 0xABCD, FRAME)
    assert endpoint.heard_at == pytest.approx(0.06)


def test_nothing_goes_to_a_third_host_before_the_caller_acknowledged(sockets: Sockets, phone: socket.socket) -> None:
    """Neither audio nor reports nor a goodbye (RTCP)."""
    phone.setblocking(False)
    endpoint = _endpoint(sockets)
    endpoint.connect(_remote(phone, signalling_host="127.0.0.2", acknowledged=False), 0.0)
    assert not endpoint.sends
    endpoint.send(FRAME)
    endpoint.send_silence()
    endpoint.report(1.8e9, 5.0)
    with pytest.raises(BlockingIOError):
        phone.recv(2000)

    endpoint.connect(_remote(phone, signalling_host="127.0.0.2"), 6.0)
    assert endpoint.sends
    endpoint.send(FRAME)
    assert packet.parse(phone.recv(2000)) is not None

    endpoint.connect(_remote(phone, signalling_host="127.0.0.2", acknowledged=False), 7.0)
    endpoint.close()
    with pytest.raises(BlockingIOError):
        phone.recv(2000)


def test_nothing_is_heard_before_connect_and_garbage_is_counted(sockets: Sockets, phone: socket.socket) -> None:
    endpoint = _endpoint(sockets)
    address = ("127.0.0.1", sockets.port)
    phone.sendto(_rtp(0), address)
    _drain(endpoint, 0.0, 1)
    assert endpoint.next_payload(1.0) is IDLE

    endpoint.connect(_remote(phone), 0.0)
    for data in (b"\x80\x00short", b"x" * 200, _rtp(1, payload_type=55), b"\x80\xc8\x00\x09"):
        phone.sendto(data, address)
    _drain(endpoint, 0.0, 5)

    assert endpoint.accepted == 0
    assert dict(endpoint.ignored()) == {"not_connected": 1, "malformed": 2, "payload_type": 1, "rtcp": 1}


def test_a_key_is_told_once(sockets: Sockets, phone: socket.socket) -> None:
    endpoint = _endpoint(sockets)
    endpoint.connect(_remote(phone, telephone_event_pt=96), 0.0)
    phone.sendto(_rtp(0), ("127.0.0.1", sockets.port))
    for index, part in enumerate(dtmf.digit_packets("#", 160)):
        data = _rtp(index + 1, payload_type=96, payload=part.payload, timestamp=part.timestamp)
        phone.sendto(data, ("127.0.0.1", sockets.port))

    assert _drain(endpoint, 0.0, 8) == ["#"]


def test_keys_take_the_place_of_audio_one_after_another(sockets: Sockets, phone: socket.socket) -> None:
    endpoint = _endpoint(sockets)
    endpoint.connect(_remote(phone, telephone_event_pt=96), 0.0)
    endpoint.send_dtmf("1")
    endpoint.send_dtmf("1")
    for tick in range(7 + 3 + 7 + 1):
        (endpoint.send_silence if tick % 2 else lambda: endpoint.send(FRAME))()
    sent = [packet.parse(phone.recv(2000)) for _ in range(18)]

    assert [one.payload_type for one in sent if one] == [96] * 7 + [0] * 3 + [96] * 7 + [0]
    assert [one.sequence for one in sent if one] == list(range(7, 25))
    assert [one.timestamp for one in sent if one][:11] == [1000] * 7 + [2120, 2280, 2440, 2600]
    press, pause = [True, *([False] * 6)], [True, False, False]
    assert [one.marker for one in sent if one] == [*press, *pause, *press, True]
    assert [one.payload for one in sent if one][:7] == [part.payload for part in dtmf.digit_packets("1", 1000)]


def test_keys_last_by_their_own_clock_where_that_is_another_one(sockets: Sockets, phone: socket.socket) -> None:
    endpoint = _endpoint(sockets)
    endpoint.connect(_remote(phone, codec="opus", payload_type=111, telephone_event_hz=8000), 0.0)
    endpoint.send_dtmf("1")
    for _ in range(7):
        endpoint.send_silence()
    sent = [packet.parse(phone.recv(2000)) for _ in range(7)]

    assert [one.payload for one in sent if one] == [part.payload for part in dtmf.digit_packets("1", 0)]


@pytest.mark.parametrize("changes", [{"telephone_event_pt": None}, {"direction": "recvonly"}])
def test_a_key_that_nobody_would_understand_is_not_sent(
    sockets: Sockets, phone: socket.socket, changes: dict[str, object]
) -> None:
    endpoint = _endpoint(sockets)
    endpoint.connect(_remote(phone, **changes), 0.0)
    endpoint.send_dtmf("1")
    endpoint.connect(_remote(phone), 0.0)
    endpoint.send(FRAME)
    sent = packet.parse(phone.recv(2000))
    assert sent is not None
    assert sent.payload == FRAME


def test_keys_wait_in_a_bounded_queue(sockets: Sockets, phone: socket.socket) -> None:
    endpoint = _endpoint(sockets)
    endpoint.connect(_remote(phone), 0.0)
    for _ in range(1000):
        endpoint.send_dtmf("9")
    for _ in range(32 * 10 + 5):
        endpoint.send(FRAME)
        last = packet.parse(phone.recv(2000))
    assert last is not None
    assert last.payload_type == 0


@pytest.mark.parametrize("direction", ["recvonly", "inactive"])
def test_direction_and_an_unusable_address_stop_sending(sockets: Sockets, phone: socket.socket, direction: str) -> None:
    endpoint = _endpoint(sockets)
    endpoint.connect(_remote(phone, direction=direction), 0.0)
    assert not endpoint.sends
    endpoint.connect(_remote(phone, address="0.0.0.0"), 0.0)
    assert not endpoint.sends
    assert not endpoint.connect(_remote(phone), 0.0), "the codec is the same"
    assert endpoint.sends


@pytest.mark.parametrize("mux", [True, False])
def test_reports_go_where_rtcp_was_negotiated(sockets: Sockets, phone: socket.socket, mux: bool) -> None:
    endpoint = _endpoint(sockets)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.bind(("127.0.0.1", 0))
        control.settimeout(2)
        endpoint.connect(_remote(phone, rtcp_port=None if mux else control.getsockname()[1]), 0.0)
        endpoint.send(FRAME)
        phone.recv(2000)
        sr = rtcp.build([rtcp.SenderReport(77, rtcp.ntp_from_unix(5.0), 0, 0, 0), rtcp.SourceDescription(77, "p")])
        phone.sendto(_rtp(0), ("127.0.0.1", sockets.port))
        phone.sendto(_rtp(2), ("127.0.0.1", sockets.port))
        _drain(endpoint, 1.0, 2)
        phone.sendto(sr, ("127.0.0.1", sockets.port + (0 if mux else 1)))
        while endpoint._last_sr is None:
            endpoint.drain(1.0)
        endpoint.report(wall=1000.0, now=3.0)
        reports = rtcp.parse((phone if mux else control).recv(2000))

    assert reports is not None
    sender = reports[0]
    assert isinstance(sender, rtcp.SenderReport)
    assert (sender.ssrc, sender.packet_count, sender.octet_count) == (0xABCD, 1, 160)
    (block,) = sender.blocks
    assert (block.ssrc, block.cumulative_lost, block.fraction_lost) == (77, 1, 85)
    assert block.delay_since_last == 2 * 65536
    assert block.last_sender_report == rtcp.middle_32(rtcp.ntp_from_unix(5.0))


def test_closing_says_goodbye(sockets: Sockets, phone: socket.socket) -> None:
    endpoint = _endpoint(sockets)
    endpoint.connect(_remote(phone), 0.0)

    endpoint.close()

    reports = rtcp.parse(phone.recv(2000))
    assert reports is not None
    assert rtcp.Goodbye((0xABCD,)) in reports


def test_opus_runs_on_its_own_clock_and_takes_packets_of_any_length(sockets: Sockets, phone: socket.socket) -> None:
    endpoint, codec = _endpoint(sockets), OpusCodec()
    endpoint.connect(_remote(phone, codec="opus", payload_type=111, telephone_event_pt=110), 0.0)
    address = ("127.0.0.1", sockets.port)
    tone = np.rint(8000 * np.sin(np.arange(320 * 20) * 440 * 2 * np.pi / 16000)).astype(np.int16)
    packets = [codec.encode(tone[at : at + 320]) for at in range(0, len(tone), 320)]

    endpoint.send_silence()
    endpoint.pass_over(2)
    endpoint.send_silence()
    sent = [packet.parse(phone.recv(2000)) for _ in range(2)]
    assert sent[0] is not None
    assert sent[1] is not None
    assert sent[1].timestamp - sent[0].timestamp == 3 * 960

    heard, digits = [], []
    for number in range(24):
        if number < 20 and number != 9:
            data = packet.RtpPacket(111, False, number, number * 960, 77, packets[number])
            phone.sendto(packet.pack(data), address)
            digits += _drain(endpoint, number * 0.02, until=endpoint.accepted + 1)
        heard.append(endpoint.next_payload(number * 0.02))
    press = dtmf.digit_packets("7", 20 * 960, clock_rate_hz=48000)
    for number, part in enumerate(press):
        event = packet.RtpPacket(110, part.marker, 20 + number, part.timestamp, 77, part.payload)
        phone.sendto(packet.pack(event), address)
    digits += _drain(endpoint, 0.5, until=endpoint.accepted + len(press))

    assert digits == ["7"]
    pcm = np.concatenate([part for part in heard if isinstance(part, np.ndarray)])
    assert len(pcm) >= 320 * 20
    frames = pcm[320 * 2 : 320 * 19].reshape(-1, 320)
    assert all(np.abs(frame).max() > 3000 for frame in frames), "the lost one is concealed"
    assert endpoint.statistics().lost == 1
