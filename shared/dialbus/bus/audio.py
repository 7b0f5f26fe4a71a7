"""Live audio over the bus: core NATS, never through JetStream."""

from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg

from dialbus import telemetry
from dialbus.bus.connection import Connection, Subscription
from dialbus.bus.errors import translated
from dialbus.contracts.audio import AudioFrame, audio_subject

log = telemetry.get_logger()


class LiveAudio(Connection):
    """PCM with headers between services, and the binary frames of clients' sockets as they are."""

    async def publish_audio(self, frame: AudioFrame) -> None:
        """Send live audio; nobody listening means it is lost, on purpose. Raises BusError when it can't leave."""
        with translated():
            await self._client.publish(frame.subject, frame.pcm, headers=frame.headers())

    async def subscribe_audio(
        self, call_id: str, track: str, handler: Callable[[AudioFrame], Awaitable[None]]
    ) -> Subscription:
        """Call the handler for every frame of a call's track, in order of arrival."""

        async def deliver(message: Msg) -> None:
            try:
                frame = AudioFrame.received(call_id, track, message.headers, message.data)
            except ValueError as error:
                log.warning("bus.bad_audio", subject=message.subject, error=str(error), call_id=call_id)
                return
            await handler(frame)

        return Subscription(await self._client.subscribe(audio_subject(call_id, track), cb=deliver), self)

    async def publish_raw(self, call_id: str, track: str, data: bytes) -> None:
        """Send a binary frame of or for a client's socket as it is. Raises BusError when it can't leave."""
        with translated():
            await self._client.publish(audio_subject(call_id, track), data)

    async def subscribe_raw(
        self, call_id: str, track: str, handler: Callable[[bytes], Awaitable[None]]
    ) -> Subscription:
        """Call the handler for every binary frame of a call's track, in order of arrival."""

        async def deliver(message: Msg) -> None:
            await handler(message.data)

        return Subscription(await self._client.subscribe(audio_subject(call_id, track), cb=deliver), self)
