"""What sip-ua says and hears on the bus."""

from dialbus.contracts import media, records, session

PUBLISHES = (
    session.DeliverWebhook,
    session.Heartbeat,
    session.BridgeWanted,
    records.WriteRecord,
    media.AllocateLeg,
    media.AllocateBeside,
    media.ConnectLeg,
    media.ConfigureLeg,
    media.AddCandidate,
    media.Playback,
    media.StopPlayback,
    media.NoteInput,
    media.JoinLegs,
    media.BridgeLeg,
    media.UnbridgeLeg,
    media.CloseLeg,
)
CONSUMES = (
    session.OpenSession,
    session.ClientCommandSent,
    session.Attach,
    session.Detach,
    session.WebhookOutcome,
    session.BridgeWanted,
    session.Heartbeat,
    media.PlaybackEnded,
    media.LegInactive,
    media.LegLost,
)
