"""What media says and hears on the bus, besides live audio and the events of its calls."""

from dialbus.contracts import media, session, speech

PUBLISHES = (
    session.Heartbeat,
    media.PlaybackEnded,
    media.LegInactive,
    media.LegLost,
    speech.OpenTranscription,
    speech.CloseTranscription,
    speech.Speak,
    speech.CancelSpeech,
)
CONSUMES = (
    session.Heartbeat,
    media.AllocateLeg,
    media.AllocateBeside,
    media.ConnectLeg,
    media.ConfigureLeg,
    media.Playback,
    media.StopPlayback,
    media.NoteInput,
    media.AddCandidate,
    media.JoinLegs,
    media.BridgeLeg,
    media.UnbridgeLeg,
    media.CloseLeg,
    speech.Transcript,
)
