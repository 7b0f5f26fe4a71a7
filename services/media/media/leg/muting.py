"""Which tracks of a call are muted (protocol 2.10)."""

from dialbus.contracts.commands import Mute, Unmute
from media.mix.mixing import Mix


class Muting:
    """One leg's view: `tracks` is shared by all legs of the call, since one's server side is another's remote party."""

    def __init__(self, main_track: str, server_track: str, mix: Mix, tracks: set[str] | None = None) -> None:
        self._own = {main_track, server_track}
        self._mix = mix
        self.tracks = set[str]() if tracks is None else tracks
        """Ids of the muted tracks, changed in place."""

    def apply(self, command: Mute | Unmute) -> None:
        """Mute or unmute the track that is named, if this leg has it, or all of them."""
        track_id = command.track_id
        known = self._own | self._mix.tracks
        if isinstance(command, Mute):
            self.tracks.update(known if track_id is None else known & {track_id})
        elif track_id is None:
            self.tracks.clear()
        else:
            self.tracks.discard(track_id)
