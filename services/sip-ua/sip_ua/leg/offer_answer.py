"""Offer and answer of one leg (RFC 3264): our descriptions and their versions, and what was agreed on.

Without I/O, and plain data: it can be stored and gone on with elsewhere (`to_state`, `from_state`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from dialbus import sdp
from dialbus.contracts.media import RemoteMedia
from sip_ua.leg import translate
from sip_ua.sip.audio_offer import NegotiatedAudio, accept_answer, make_answer, make_offer


@dataclass(slots=True)
class OfferAnswer:
    """The SDP on both sides of one leg."""

    codecs: tuple[sdp.Codec, ...]
    """Ours, the preferred one first."""
    sdp_id: int
    """Of our `o=` line."""
    version: int = 0
    """Of our latest description; 0 before the first."""
    address: str = ""
    port: int = 0
    """Where our media is reached."""
    local: sdp.Description | None = None
    foreign: str | None = None
    """Our SDP when a WebRTC leg made it; it is not negotiated anew."""
    agreed: NegotiatedAudio | None = None
    early: dict[str, tuple[NegotiatedAudio, str]] = field(default_factory=dict)
    """What early answers came to, and their SDP, by the remote tag of each fork."""
    on_hold: bool = False

    @property
    def local_sdp(self) -> bytes:
        """Our latest offer or answer; empty before the first."""
        if self.foreign is not None:
            return self.foreign.encode()
        return sdp.write(self.local) if self.local is not None else b""

    @property
    def remote(self) -> RemoteMedia | None:
        """What offer and answer agreed on, for the media worker."""
        return translate.remote_media(self.agreed) if self.agreed is not None else None

    @property
    def needs_answer(self) -> bool:
        """Whether an offer of ours is all there is."""
        return self.agreed is None and self.foreign is None

    def check(self, offer: bytes) -> None:
        """Find out whether an offer can be answered before media has an address. Raises sdp.SdpError."""
        make_answer(sdp.parse(offer), self.codecs, "127.0.0.1", 9, self.sdp_id, 1)

    def describe(self, offer: bytes | None) -> None:
        """Our answer to an offer, or an offer of ours when there is none. Raises sdp.SdpError, and nothing changes."""
        version, where = self.version + 1, (self.address, self.port)
        if self.foreign is not None:
            raise sdp.SdpError("a WebRTC leg is not negotiated anew")
        if offer is None:
            self.local = make_offer(*where, self.codecs, self.sdp_id, version, previous=self.local)
        else:
            description = sdp.parse(offer)
            self.local, self.agreed = make_answer(description, self.codecs, *where, self.sdp_id, version)
        self.version = version  # only now: a refused offer uses up no version (RFC 3264 §8)

    def take_early_answer(self, body: bytes, remote_tag: str) -> None:
        """SDP in a 18x. Raises sdp.SdpError."""
        self.take_answer(body)
        assert self.agreed is not None
        self.early[remote_tag] = (self.agreed, body.decode(errors="replace"))

    def take_final_answer(self, body: bytes | None, remote_tag: str) -> str:
        """The SDP of a 200, which may have come early from that fork. Raises sdp.SdpError."""
        if body is not None:
            self.take_answer(body)
            return body.decode(errors="replace")
        if remote_tag not in self.early:
            raise sdp.SdpError("the answer has no SDP")
        self.agreed, text = self.early[remote_tag]
        return text

    def take_answer(self, body: bytes) -> None:
        """The answer to our latest offer. Raises sdp.SdpError."""
        assert self.local is not None
        self.agreed = accept_answer(self.local, sdp.parse(body), self.codecs)

    def is_elsewhere(self, host: str) -> bool:
        """Whether the peer's media is at another host than this one."""
        return self.agreed is not None and self.agreed.remote_address != host

    def hold_changed(self) -> bool | None:
        """Whether the peer holds the call now, once when that changed."""
        assert self.agreed is not None
        changed, self.on_hold = self.agreed.on_hold is not self.on_hold, self.agreed.on_hold
        return self.on_hold if changed else None

    def to_state(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        made: dict[str, Any] = _STATE.dump_python(self, mode="json")
        return made

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "OfferAnswer":
        """What `to_state` described. Raises pydantic.ValidationError."""
        return _STATE.validate_python(state)


_STATE = TypeAdapter(OfferAnswer)
