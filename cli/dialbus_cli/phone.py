"""`dialbus phone`: one call by a softphone, its progress printed, its voice from a WAV, what it hears to a WAV.

The SIP it writes and reads is pyVoIP's where that holds: INVITE, SDP, and parsing of both. What it does wrong is
done here from outside: it can't call without a registrar, listens in threads on fixed ports, repeats Call-IDs from
one start to the next, resends nothing, and its ACK and BYE name a wrong target, a wrong tag and a wrong branch
(RFC 3261 sections 12.2.1.1, 13.2.2.4 and 17.1.1.3). One call at a time, no proxy authentication.

pyVoIP is GPL-3; only this command imports it. The SIP of the call is a machine of its own (`phone_call`).
"""

import argparse
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path

from dialbus_cli import wav
from dialbus_cli.phone_call import PhoneCall, State
from dialbus_cli.phone_message import Address, PhoneError, parse_address
from dialbus_cli.voice import KEYS, PACKET_S, Peer, Voice

BEHIND_PACKETS = 10


class Said(Enum):
    """How much of what it was told to say the phone has said."""

    NOTHING = "nothing"
    SPEAKING = "speaking"
    ALL = "all"


class Softphone:
    """One call, from one thread: sockets, timers and the 20 ms clock in one loop."""

    def __init__(self, arguments: argparse.Namespace, sound: wav.Pcm | None, tell: Callable[[str], None]) -> None:
        self._arguments = arguments
        self._sound = sound
        self._tell_line = tell
        self._began = time.monotonic()
        self._sip = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.voice = Voice(ssrc=secrets.randbits(32), sequence=secrets.randbits(15), timestamp=secrets.randbits(32))
        self.call = PhoneCall(arguments, self)
        self._interrupted = False
        self._said = Said.NOTHING
        self._heard_told = False
        self._keys_told = 0
        self._next_packet_at = 0.0

    # -- one call --------------------------------------------------------------------------------

    def run(self) -> int:
        """Place or await the call and see it through; the exit code."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        try:
            if self._arguments.listen:
                self._listen()
            else:
                self._call()
            while self.call.exit_code is None:
                self._turn()
        finally:
            self._sip.close()
            self._rtp.close()
        if self._arguments.record is not None:
            sound = self.voice.heard()
            wav.write(self._arguments.record, sound)
            self.tell(f"recorded {len(sound) / wav.RATE_HZ:.1f} s to {self._arguments.record}")
        return self.call.exit_code

    def _on_signal(self, *_: object) -> None:
        self._interrupted = True

    def _turn(self) -> None:
        """Wait for a datagram or the next deadline, and do what is due."""
        now = time.monotonic()
        due = [self._next_packet_at] if self.voice.peer else []
        due += [self.call.deadline] if self.call.deadline is not None else []
        wait_s = min([max(at - now, 0.0) for at in due], default=0.1)
        try:
            readable, _, _ = select.select([self._sip, self._rtp], [], [], min(wait_s, 0.1))
        except InterruptedError:
            readable = []
        now = time.monotonic()
        if self._sip in readable:
            data, source = self._sip.recvfrom(65535)
            self.call.receive(data, source, now)
        if self._rtp in readable:
            self.voice.receive(self._rtp.recv(2048), now)
        self._timers(now)

    def _timers(self, now: float) -> None:
        if self._interrupted:
            self._interrupted = False
            self.call.hang_up(now, "Ctrl-C")
        self.call.tick(now)
        if self.call.state is State.TALKING:
            self._talk(now)
        if self.call.exit_code is None:
            self._send_voice(now)

    def _send_voice(self, now: float) -> None:
        while self.voice.peer is not None and now >= self._next_packet_at:
            if now - self._next_packet_at > BEHIND_PACKETS * PACKET_S:  # the machine slept: don't send a burst
                self._next_packet_at = now
            self._next_packet_at += PACKET_S
            packet = self.voice.packet()
            if packet is not None:
                with suppress(OSError):
                    self._rtp.sendto(packet, (self.voice.peer.host, self.voice.peer.port))

    # -- what the call needs of us ---------------------------------------------------------------

    def tell(self, text: str) -> None:
        """A line for the user, with the time since the start."""
        self._tell_line(f"{time.monotonic() - self._began:7.2f} s  {text}")

    def send(self, data: bytes, to: Address) -> None:
        """Send SIP. Raises PhoneError when the very first message can't leave."""
        try:
            self._sip.sendto(data, to)
        except OSError as error:
            if self.call.state in (State.IDLE, State.CALLING):
                raise PhoneError(f"can't reach {to[0]}:{to[1]}: {error.strerror}") from None

    def bind(self, peer: Address) -> tuple[Address, int]:
        """Open the ports towards a peer: our SIP address, our RTP port. Raises PhoneError."""
        host = self._arguments.host or _route_to(peer)
        try:
            if not self._sip.getsockname()[1]:
                self._sip.bind((host, self._arguments.port))
            self._rtp.bind((host, 0))
        except OSError as error:
            raise PhoneError(f"--host {host} --port {self._arguments.port}: {error.strerror}") from None
        return (host, self._sip.getsockname()[1]), self._rtp.getsockname()[1]

    def connect(self, peer: Peer, now: float) -> None:
        """Let the voice go there."""
        self.voice.start(now)
        if self.voice.peer is None:
            self._next_packet_at = now
        self.voice.peer = peer

    @property
    def connected(self) -> Peer | None:
        """Where the voice goes."""
        return self.voice.peer

    # -- the two ways to begin -------------------------------------------------------------------

    def _call(self) -> None:
        user, host, port = parse_address(self._arguments.address)
        try:
            to = (socket.gethostbyname(host), port)
        except OSError as error:
            raise PhoneError(f"{host}: {error.strerror or error}") from None
        self.call.dial(user, host, to, time.monotonic())

    def _listen(self) -> None:
        host = self._arguments.host or "0.0.0.0"
        try:
            self._sip.bind((host, self._arguments.port))
        except OSError as error:
            raise PhoneError(f"--host {host} --port {self._arguments.port}: {error.strerror}") from None
        shown = "127.0.0.1" if host == "0.0.0.0" else host
        self.tell(f"listening on sip:{self._arguments.user}@{shown}:{self._sip.getsockname()[1]}")

    # -- speech ----------------------------------------------------------------------------------

    def _talk(self, now: float) -> None:
        """Progress of an answered call: begin to speak, press keys, hang up in time."""
        arguments, answered_at = self._arguments, self.call.answered_at
        assert answered_at is not None
        if self.voice.first_heard_at is not None and not self._heard_told:
            self._heard_told = True
            self.tell("hearing the other side")
        for key in self.voice.keys[self._keys_told :]:
            self.tell(f"the other side pressed {key}")
        self._keys_told = len(self.voice.keys)
        if self._said is Said.NOTHING and (
            self.voice.greeted(now) if arguments.after_greeting else now >= answered_at + arguments.wait_before_say
        ):
            self._speak()
        elif self._said is Said.SPEAKING and not self.voice.busy:
            self._said = Said.ALL
            self.tell("said all")
        if arguments.seconds is not None and now >= answered_at + arguments.seconds:
            self.call.hang_up(now, f"this phone after {arguments.seconds:g} s")

    def _speak(self) -> None:
        self._said = Said.ALL
        if self._sound is not None:
            self.voice.say(self._sound)
            self.tell(f"talking: {self._arguments.say} ({len(self._sound) / wav.RATE_HZ:.1f} s)")
            self._said = Said.SPEAKING
        if self._arguments.dtmf:
            if self.voice.peer is not None and self.voice.peer.event_type is None:
                self.tell("the other side takes no telephone-event; no key is pressed")
                return
            self.voice.press(self._arguments.dtmf)
            self.tell(f"pressing {self._arguments.dtmf}")
            self._said = Said.SPEAKING


def _route_to(peer: Address) -> str:
    """The own address that packets to a peer leave from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(peer)
        except OSError as error:
            raise PhoneError(f"can't reach {peer[0]}: {error.strerror}") from None
        return str(sock.getsockname()[0])


def main(arguments: argparse.Namespace) -> int:
    """Place or await one call. 0: a normal call, 1: refused or not answered, 2: can't be tried."""

    def tell(line: str) -> None:
        print(line, flush=True)

    try:
        if bool(arguments.address) == arguments.listen:
            raise PhoneError("name an address to call, or --listen")
        if not set(arguments.dtmf.upper()) <= set(KEYS):
            raise PhoneError(f"--dtmf: keys are {KEYS}")
        sound = wav.read(Path(arguments.say)) if arguments.say is not None else None
        return Softphone(arguments, sound, tell).run()
    except (PhoneError, wav.WavError) as error:
        print(f"dialbus: phone: {error}", file=sys.stderr)
        return 2
