"""Two legs whose remote parties hear each other (protocol 6.5, 6.9)."""

from typing import Protocol

from media.mix.mixing import Mix, RemoteParty, RemotePartySource

_NAME = "join"


class Joinable(RemoteParty, Protocol):
    """What a join needs of a leg."""

    main_track: str
    mix: Mix
    join: "Join | None"
    """The one that the leg is part of."""

    def forward_dtmf_to(self, other: "Joinable | None") -> None:
        """Send what digits the remote party presses to that of the other leg, too."""

    def send_dtmf(self, digit: str) -> None:
        """Send a digit to the remote party."""

    def pause_recognition(self, paused: bool) -> None:
        """Recognise nothing, or go on."""


class Join:
    """From `JoinLegs` until it is said again or one of both legs closes.

    The first party's playback stays its own: `tts` during a transfer is heard by it and not by the second one.
    """

    def __init__(
        self, first: Joinable, second: Joinable, *, one_way: bool, forward_dtmf: bool, pause_asr: bool
    ) -> None:
        for leg in (first, second):
            if leg.join is not None:
                leg.join.end()
        self._first, self._second = first, second
        first.join = second.join = self
        first.mix.put(_NAME, RemotePartySource(second.main_track, second))
        if not one_way:
            second.mix.put(_NAME, RemotePartySource(first.main_track, first))
        if forward_dtmf:
            second.forward_dtmf_to(first)
            if not one_way:
                first.forward_dtmf_to(second)
        if pause_asr:
            first.pause_recognition(True)

    def end(self) -> None:
        """Both are on their own again."""
        for leg in (self._first, self._second):
            leg.join = None
            leg.mix.drop(_NAME)
            leg.forward_dtmf_to(None)
            leg.pause_recognition(False)
