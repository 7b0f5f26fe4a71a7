"""What sip-ua says and hears on the bus."""

from dialbus.contracts import media, session

PUBLISHES = (
    session.DeliverWebhook,
    session.Heartbeat,
    media.AllocateLeg,
    media.ConnectLeg,
    media.ConfigureLeg,
    media.Playback,
    media.NoteInput,
    media.CloseLeg,
)
CONSUMES = (
    session.OpenSession,
    session.ClientCommandSent,
    session.Attach,
    session.Detach,
    session.WebhookOutcome,
    session.Heartbeat,
    media.PlaybackEnded,
    media.LegLost,
)
