"""The softphone: its parser and its voice by themselves, then two phones calling each other over real sockets."""

import math
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialbus_cli import wav
from dialbus_cli.phone_message import Message, PhoneError, parse_address
from dialbus_cli.voice import Peer, Voice

RINGING = (
    b"SIP/2.0 180 Ringing\r\nv: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1\r\nFROM:<sip:a@b>;tag=1\r\n"
    b"t: <sip:c@d>;tag=2\r\ni: 77@b\r\ncseq: 3 INVITE\r\nSubject: folded\r\n over two lines\r\n\r\n"
)
ANSWER = (
    b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2"
    b"\r\nCall-ID: 77@b\r\nCSeq: 3 INVITE\r\nContent-Type: application/sdp\r\n\r\n"
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\n"
    b"c=IN IP4 127.0.0.9\r\nt=0 0\r\na=group:x=y\r\nm=audio 4000 RTP/AVP 9 8 96\r\na=rtpmap:9 G722/8000\r\n"
    b"a=rtpmap:8 PCMA/8000\r\na=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-15\r\na=sendrecv\r\n"
)


class TestMessages:
    def test_compact_folded_and_oddly_spelt_headers_are_read(self) -> None:
        message = Message.parse(RINGING)

        assert (message.status, message.reason, message.answers, message.number) == (180, "Ringing", "INVITE", 3)
        assert message.header("Call-ID") == "77@b"
        assert message.header("From") == "<sip:a@b>;tag=1"
        assert message.header("Subject") == "folded over two lines"
        assert message.description() is None

    def test_the_answer_says_where_and_how_to_send(self) -> None:
        peer = Message.parse(ANSWER).description()

        assert peer is not None
        assert (peer.host, peer.port, peer.payload_type, peer.event_type) == ("127.0.0.9", 4000, 8, 96)

    @pytest.mark.parametrize(
        ("old", "new"),
        [(b"audio 4000", b"audio 0"), (b"RTP/AVP 9 8 96", b"RTP/AVP 9 96"), (b"RTP/AVP 9", b"RTP/SAVPF 9")],
    )
    def test_refused_or_foreign_media_are_none(self, old: bytes, new: bytes) -> None:
        assert Message.parse(ANSWER.replace(old, new)).description() is None

    @given(st.binary(max_size=200))
    def test_any_bytes_parse_or_raise_value_error(self, data: bytes) -> None:
        for attempt in (data, RINGING[:40] + data, ANSWER[:-200] + data):
            try:
                Message.parse(attempt).description()
            except ValueError:
                continue

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("sip:4000@127.0.0.1:13050", ("4000", "127.0.0.1", 13050)),
            ("example.org", ("", "example.org", 5060)),
            ("sip:h:5070", ("", "h", 5070)),
        ],
    )
    def test_addresses(self, text: str, parts: tuple[str, str, int]) -> None:
        assert parse_address(text) == parts

    @pytest.mark.parametrize("text", ["", "sip:", "sip:a@b:99999", "a b@c", "sip:a@b@c", "sip:a@b:0"])
    def test_what_is_no_address(self, text: str) -> None:
        with pytest.raises(PhoneError):
            parse_address(text)


def tone(rate_hz: int, seconds: float, hz: float = 400.0) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return 0.5 * np.sin(2 * math.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz)


def riff(kind: int, channels: int, rate_hz: int, bits: int, data: bytes) -> bytes:
    block = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, rate_hz, rate_hz * block, block, bits)
    chunks = b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"fmt " + struct.pack("<I", 16) + header
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


class TestWav:
    @pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 22050, 44100, 48000])
    @pytest.mark.parametrize(("kind", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
    def test_every_rate_width_and_channel_count_gives_the_same_8_khz_tone(
        self, tmp_path: Path, rate_hz: int, kind: int, bits: int
    ) -> None:
        mono = tone(rate_hz, 0.5)
        stereo = np.stack([mono, mono], axis=1).ravel()
        match kind, bits:
            case (1, 8):
                data = (stereo * 127 + 128).astype(np.uint8).tobytes()
            case (1, 24):
                data = (stereo * (2**31 - 1)).astype("<i4").reshape(-1, 1).view(np.uint8)[:, 1:].tobytes()
            case (1, _):
                data = (stereo * (2 ** (bits - 1) - 1)).astype(f"<i{bits // 8}").tobytes()
            case _:
                data = stereo.astype(f"<f{bits // 8}").tobytes()
        path = tmp_path / "in.wav"
        path.write_bytes(riff(kind, 2, rate_hz, bits, data))

        sound = wav.read(path)

        expected = tone(8000, 0.5) * 2**15
        assert len(sound) == len(expected)
        inner = slice(200, -200)  # the ends of a cut tone ring
        assert np.max(np.abs(sound[inner] - expected[inner])) < 2**15 * 0.02

    def test_what_the_telephone_band_can_not_carry_is_cut_not_folded(self) -> None:
        high = wav.resample(tone(48000, 0.5, hz=6000.0), 48000)

        assert np.sqrt(np.mean(high[200:-200] ** 2)) < 0.01

    def test_written_is_read_again(self, tmp_path: Path) -> None:
        sound = np.arange(-2000, 2000, dtype=np.int16)

        wav.write(tmp_path / "x.wav", sound)

        assert np.array_equal(wav.read(tmp_path / "x.wav"), sound)

    @given(st.binary(max_size=80))
    def test_any_file_is_read_or_refused(self, tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
        path = tmp_path_factory.getbasetemp() / "any.wav"
        for attempt in (data, b"RIFF....WAVE" + data, b"RIFF....WAVEfmt \x10\0\0\0" + data):
            path.write_bytes(attempt)
            try:
                wav.read(path)
            except wav.WavError:
                continue


def voice_to(peer: Peer | None) -> Voice:
    voice = Voice(ssrc=7, sequence=0xFFFE, timestamp=2**32 - 160)
    voice.peer = peer
    return voice


def peer() -> Peer:
    found = Message.parse(ANSWER).description()
    assert found is not None
    return found


def header(packet: bytes) -> tuple[int, int, int]:
    """Second byte, sequence number, timestamp."""
    _, second, sequence, timestamp, _ = struct.unpack_from("!BBHII", packet)
    return second, sequence, timestamp


class TestVoice:
    def test_packets_count_on_across_the_wrap(self) -> None:
        voice = voice_to(peer())
        voice.say(np.zeros(200, np.int16))

        packets = [voice.packet() for _ in range(3)]

        assert [header(packet) for packet in packets if packet] == [
            (8, 0xFFFE, 2**32 - 160),
            (8, 0xFFFF, 0),
            (8, 0, 160),
        ]
        assert all(packet is not None and len(packet) == 172 for packet in packets)
        assert not voice.busy

    def test_a_key_is_one_event_with_a_growing_duration_and_a_threefold_end(self) -> None:
        voice = voice_to(peer())
        voice.press("#")

        packets = [packet for _ in range(12) if (packet := voice.packet())]

        events = [packet for packet in packets if packet[1] & 0x7F == 96]
        assert len(events) == 11
        assert [packet[1] >> 7 for packet in events] == [1] + [0] * 10
        assert {header(packet)[2] for packet in events} == {2**32 - 160}
        assert [struct.unpack_from("!BBH", packet, 12) for packet in events] == [
            *((11, 10, 160 * (n + 1)) for n in range(8)), *[(11, 0x8A, 1280)] * 3
        ]  # fmt: skip
        assert header(packets[11]) == (8, (0xFFFE + 11) & 0xFFFF, 1120)  # 8 × 160 later, over the wrap

    def test_what_is_sent_is_heard_at_its_place_and_in_order(self) -> None:
        sender, receiver = voice_to(peer()), voice_to(peer())
        sound = (tone(8000, 0.1) * 2**14).astype(np.int16)
        sender.say(sound)
        packets = [packet for _ in range(5) if (packet := sender.packet())]
        receiver.start(100.0)

        for place in (0, 2, 1, 4):  # one late, one lost
            receiver.receive(packets[place], 100.5 + 0.02 * place)

        heard = receiver.heard()
        assert len(heard) == 4000 + 800
        assert not heard[:4000].any()
        assert not heard[4480:4640].any()
        assert np.max(np.abs(heard[4000:4480].astype(int) - sound[:480])) < 600  # A-law is this coarse

    def test_a_greeting_is_over_after_quiet(self) -> None:
        sender, receiver = voice_to(peer()), voice_to(peer())
        sender.say((tone(8000, 0.4) * 2**14).astype(np.int16))
        for place in range(20):
            packet = sender.packet()
            assert packet is not None
            receiver.receive(packet, 10 + 0.02 * place)

        assert not receiver.greeted(10.5)
        assert receiver.greeted(11.3)

    def test_keys_are_heard_once(self) -> None:
        sender, receiver = voice_to(peer()), voice_to(peer())
        sender.press("55*")
        while sender.busy:
            packet = sender.packet()
            assert packet is not None
            receiver.receive(packet, 1.0)

        assert receiver.keys == ["5", "5", "*"]

    @given(st.binary(max_size=60))
    def test_any_datagram_is_taken_or_ignored(self, data: bytes) -> None:
        receiver = voice_to(peer())
        receiver.receive(data, 1.0)
        receiver.receive(b"\x80\x08" + data, 1.0)
        receiver.receive(b"\x80\x60" + data, 1.0)


def start(*options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "dialbus_cli", "phone", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def listener(*options: str) -> tuple["subprocess.Popen[str]", str]:
    """A phone that waits, and its address."""
    process = start("--listen", *options)
    assert process.stdout is not None
    found = re.search(r"sip:\S+", process.stdout.readline())
    assert found is not None
    return process, found[0]


class TestTwoPhones:
    def test_hear_each_other_and_the_callee_learns_of_the_hang_up(self, tmp_path: Path) -> None:
        for name, hz in (("low", 500.0), ("high", 1500.0)):
            wav.write(tmp_path / f"{name}.wav", (tone(8000, 3.0, hz) * 2**14).astype(np.int16))
        callee, address = listener(
            "--say", str(tmp_path / "low.wav"), "--record", str(tmp_path / "callee.wav"), "--ring", "0.1"
        )
        caller = start(
            address, "--say", str(tmp_path / "high.wav"), "--record", str(tmp_path / "caller.wav"), "--seconds", "1"
        )

        caller_said, _ = caller.communicate(timeout=20)
        callee_said, _ = callee.communicate(timeout=20)

        assert (caller.returncode, callee.returncode) == (0, 0), caller_said + callee_said
        steps = ["calling", "ringing", "answered: PCMU", "talking", "hearing", "hung up by this phone", "recorded"]
        places = [caller_said.find(step) for step in steps]
        assert -1 not in places, caller_said
        assert places[:3] == sorted(places[:3])
        assert "hung up by the other side" in callee_said
        for name, hz in (("caller", 500.0), ("callee", 1500.0)):
            heard = wav.read(tmp_path / f"{name}.wav")[800:6400].astype(float)
            assert abs(np.argmax(np.abs(np.fft.rfft(heard))) * 8000 / len(heard) - hz) < 5

    def test_a_refused_call_is_exit_code_1_with_the_code(self) -> None:
        callee, address = listener("--refuse", "603", "--ring", "0")

        caller_said, _ = start(address).communicate(timeout=20)
        caller = start(address)
        callee.communicate(timeout=20)

        assert "refused: 603 Decline" in caller_said
        assert callee.returncode == 0
        caller.kill()
        caller.communicate()

    def test_ctrl_c_while_it_rings_cancels(self) -> None:
        callee, address = listener("--ring", "20")
        caller = start(address)
        assert caller.stdout is not None
        for line in caller.stdout:
            if "ringing" in line:
                break

        caller.send_signal(2)
        callee_said, _ = callee.communicate(timeout=20)
        caller_said, _ = caller.communicate(timeout=20)

        assert "the caller gave up" in callee_said
        assert "given up by Ctrl-C" in caller_said
        assert caller.returncode == 1

    @pytest.mark.parametrize(
        "options",
        [["sip:a@127.0.0.1", "--listen"], [], ["sip:a@127.0.0.1", "--dtmf", "x"], ["sip:a@127.0.0.1", "--say", "no"]],
    )
    def test_what_can_not_be_tried_is_one_line_and_exit_code_2(self, options: list[str]) -> None:
        process = start(*options)
        said, _ = process.communicate(timeout=20)

        assert process.returncode == 2
        assert len(said.splitlines()) == 1
        assert said.startswith("dialbus: phone: ")
