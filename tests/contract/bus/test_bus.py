"""The bus itself against a real nats-server: replies, refusals, the numbered stream, work queues, compare-and-set."""

import asyncio

import pytest
from structlog.testing import capture_logs

from dialbus.bus import Bus, Conflict, Later, NoReply, NoResponder, Refused, StreamedEvent, Subscription
from dialbus.config import NatsConfig
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.base import Contract, Taken, token
from dialbus.contracts.events import AddHistory, Event
from dialbus.contracts.media import AllocateLeg, CloseLeg, LegAllocated
from dialbus.contracts.session import Announcement, CallState, CallType, DeliverWebhook, Session
from dialbus.contracts.speech import CancelSpeech
from dialbus.sessions import Sessions
from dialbus.tasks import cancel_all
from tests.harness import eventually

ANNOUNCED = Announcement(dialog_id="x", caller="sip:a@b", callee="sip:c@d", created_at="x", headers=[], offer="")


def line(text: str) -> Event:
    return AddHistory(timestamp=1, speaker="bot", text=text)


async def first(bus: Bus, call_id: str, count: int, first_sequence: int = 0) -> list[StreamedEvent]:
    found = []
    async with asyncio.timeout(5):
        async for event in bus.events(call_id, first_sequence):
            found.append(event)
            if len(found) == count:
                return found
    raise AssertionError("the stream ended")


async def test_a_request_is_taken_with_its_own_reply(bus: Bus, call_id: str) -> None:
    async def allocate(request: AllocateLeg) -> Contract:
        return LegAllocated(worker=request.call_id, address="127.0.0.1", port=4000, ssrc=7)

    await bus.serve(AllocateLeg, allocate, queue="test")
    request = AllocateLeg(call_id=call_id, main_track="m", server_track="s")
    assert await bus.request(request) == LegAllocated(worker=call_id, address="127.0.0.1", port=4000, ssrc=7)


async def test_what_a_handler_raises_is_logged_with_its_call(bus: Bus, call_id: str) -> None:
    async def fail(_: CloseLeg) -> Contract:
        raise KeyError("x")

    await bus.serve(CloseLeg, fail, call_id=call_id)
    with capture_logs() as lines, pytest.raises(Refused):
        await bus.request(CloseLeg(call_id=call_id))
    assert [(line["event"], line["call_id"]) for line in lines] == [("bus.handler_failed", call_id)]


async def test_refused_failed_silent_and_absent_are_told_apart(bus: Bus, call_id: str) -> None:
    async def answer(request: CloseLeg) -> Contract:
        raise Refused(409, "not now") if request.call_id == call_id else KeyError("x")

    await bus.serve(CloseLeg, answer)
    with pytest.raises(Refused) as refused:
        await bus.request(CloseLeg(call_id=call_id))
    assert (refused.value.code, refused.value.reason) == (409, "not now")
    with pytest.raises(Refused) as failed:
        await bus.request(CloseLeg(call_id="other"))
    assert failed.value.code == 500

    never = asyncio.Event()

    async def wait(_: AllocateLeg) -> Contract:
        await never.wait()
        return Taken()

    await bus.serve(AllocateLeg, wait, queue="silent")
    with pytest.raises(NoReply):
        await bus.request(AllocateLeg(call_id=call_id, main_track="m", server_track="s"), timeout_s=0.05)
    never.set()


async def test_nobody_there_is_told_at_once(bus: Bus, call_id: str) -> None:
    async with asyncio.timeout(1):
        with pytest.raises(NoResponder):
            await bus.request(CloseLeg(call_id=call_id), timeout_s=30)


async def test_who_has_left_the_queue_group_gets_nothing(bus: Bus, call_id: str) -> None:
    async def answer(_: CloseLeg) -> Contract:
        return Taken()

    subscription = await bus.serve(CloseLeg, answer, queue="group", call_id=call_id)
    await bus.request(CloseLeg(call_id=call_id))
    await subscription.leave()
    with pytest.raises(NoResponder):
        await bus.request(CloseLeg(call_id=call_id))


async def test_events_are_numbered_from_one_stored_first_then_live(bus: Bus, call_id: str) -> None:
    start = await bus.last_sequence() + 1
    for text in "ab":
        await bus.emit(call_id, line(text))
    await bus.emit(f"other-{call_id}", line("not ours"))
    reading = asyncio.create_task(first(bus, call_id, 3, start))
    await bus.emit(call_id, line("c"))

    found = await reading

    assert [event.seq for event in found] == [1, 2, 3]
    assert [event.name for event in found] == ["addHistory"] * 3
    assert [b'"text":"%s"' % text in event.data for text, event in zip((b"a", b"b", b"c"), found, strict=True)] == [
        True
    ] * 3


async def test_a_reused_id_does_not_replay_its_former_life(bus: Bus, call_id: str) -> None:
    await bus.emit(call_id, line("former"))
    start = await bus.last_sequence() + 1
    await bus.emit(call_id, line("new"))
    (event,) = await first(bus, call_id, 1, start)
    assert b"new" in event.data
    assert event.seq == 1


async def test_two_readers_count_the_same_numbers(bus: Bus, nats_url: str, call_id: str) -> None:
    start = await bus.last_sequence() + 1
    for number in range(20):
        await bus.emit(call_id, line(str(number)))
    async with Bus.connect(NatsConfig(url=nats_url), service="test", instance="other") as other:
        here, there = await asyncio.gather(first(bus, call_id, 20, start), first(other, call_id, 20, start))
    assert here == there


async def test_audio_arrives_in_order_with_its_headers(bus: Bus, call_id: str) -> None:
    frames: asyncio.Queue[AudioFrame] = asyncio.Queue()
    await bus.subscribe_audio(call_id, "main", frames.put)
    sent = [AudioFrame(call_id, "main", "0", n, 16000, bytes([n, 0]), last=n == 4) for n in range(5)]
    for frame in sent:
        await bus.publish_audio(frame)
    async with asyncio.timeout(2):
        assert [await frames.get() for _ in sent] == sent


async def test_work_is_done_once_and_again_only_when_it_failed(bus: Bus, nats_url: str, call_id: str) -> None:
    done: asyncio.Queue[str] = asyncio.Queue()
    tries: list[str] = []

    async def handle(item: DeliverWebhook) -> None:
        if item.call_id == call_id:
            tries.append(item.call_id)
            if len(tries) == 1:
                raise RuntimeError("first try fails")
            await done.put(item.call_id)

    worker = asyncio.create_task(bus.work(DeliverWebhook, handle, durable="webhook-dispatcher"))
    await bus.enqueue(DeliverWebhook(call_id=call_id, body=ANNOUNCED, give_up_at_ms=0))
    async with asyncio.timeout(10):
        assert await done.get() == call_id
    assert len(tries) == 2
    await cancel_all([worker])


async def test_work_put_off_comes_back_when_it_said(bus: Bus, call_id: str) -> None:
    tries: asyncio.Queue[float] = asyncio.Queue()
    clock = asyncio.get_running_loop().time

    async def handle(item: DeliverWebhook) -> None:
        if item.call_id == call_id:
            await tries.put(clock())
            if tries.qsize() == 1:
                raise Later(0.3)

    worker = asyncio.create_task(bus.work(DeliverWebhook, handle, durable="webhook-dispatcher"))
    await bus.enqueue(DeliverWebhook(call_id=call_id, body=ANNOUNCED, give_up_at_ms=0))
    await eventually(lambda: tries.qsize() == 2)
    first, second = await tries.get(), await tries.get()
    assert 0.2 < second - first < 5.0
    await cancel_all([worker])


async def test_a_message_that_does_not_fit_is_dropped_and_the_next_one_heard(bus: Bus, call_id: str) -> None:
    heard: asyncio.Queue[CancelSpeech] = asyncio.Queue()
    await bus.subscribe(CancelSpeech, heard.put, call_id=call_id)
    good = CancelSpeech(call_id=call_id, utterance_id="u")
    await bus._client.publish(good.subject, b"{not json")
    await bus._client.publish(good.subject, b'{"utterance_id": 5}')
    await bus.publish(good)
    async with asyncio.timeout(2):
        assert await heard.get() == good


async def test_a_session_id_is_claimed_once(bus: Bus, call_id: str) -> None:
    sessions = await Sessions.open(bus)
    mine = Session(call_id=call_id, call_type=CallType.SIP, created_at="now")
    await sessions.create(mine)
    with pytest.raises(Conflict):
        await sessions.create(mine)
    assert await sessions.get(call_id) == mine
    await sessions.delete(call_id)
    assert await sessions.get(call_id) is None
    await sessions.delete(call_id)
    await sessions.create(mine)


async def test_all_live_sessions_are_listed_and_ended_ones_leave_no_trace(bus: Bus, call_id: str) -> None:
    sessions = await Sessions.open(bus)
    mine = {f"{number}-{call_id}" for number in range(150)}
    await asyncio.gather(
        *(sessions.create(Session(call_id=one, call_type=CallType.SIP, created_at="now")) for one in mine)
    )
    for _ in range(5):
        assert mine <= {session.call_id for session in await sessions.all()}
    await asyncio.gather(*(sessions.delete(one) for one in mine))
    assert not mine & {session.call_id for session in await sessions.all()}
    info = await bus._js.stream_info("KV_calls", subjects_filter="$KV.calls.>")
    assert not [name for name in info.state.subjects or {} if token(call_id) in name]


async def test_concurrent_changes_are_all_kept(bus: Bus, call_id: str) -> None:
    sessions = await Sessions.open(bus)
    await sessions.create(Session(call_id=call_id, call_type=CallType.SIP, created_at="now"))

    async def count() -> None:
        await sessions.change(
            call_id, lambda session: session.model_copy(update={"first_sequence": session.first_sequence + 1})
        )

    await asyncio.gather(*(count() for _ in range(8)))
    found = await sessions.get(call_id)
    assert found is not None
    assert found.first_sequence == 8


async def test_only_one_of_two_gateways_takes_a_pending_call(bus: Bus, call_id: str) -> None:
    sessions = await Sessions.open(bus)
    await sessions.create(Session(call_id=call_id, call_type=CallType.SIP, state=CallState.PENDING, created_at="now"))

    async def take(gateway: str) -> bool:
        found = await sessions.change(
            call_id, lambda session: None if session.gateway else session.model_copy(update={"gateway": gateway})
        )
        return found is not None and found.gateway == gateway

    assert sorted(await asyncio.gather(take("a"), take("b"))) == [False, True]
    assert await sessions.change("nobody", lambda session: session) is None


class Member:
    """Takes one request of a group, and leaves it."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.leaving: list[asyncio.Task[None]] = []
        self.subscriptions: list[Subscription] = []

    async def come(self) -> None:
        self.subscriptions += [
            await self.bus.serve(AllocateLeg, self.allocate, queue="coming-and-going", kind=kind)
            for kind in ("rtp", "webrtc", "socket")
        ]
        await self.bus.flush()

    async def allocate(self, _: AllocateLeg) -> Contract:
        if self.leaving:
            raise Refused(503, "full")
        self.leaving += [asyncio.create_task(subscription.leave()) for subscription in self.subscriptions]
        return LegAllocated(worker=self.bus.instance, ssrc=1)


async def test_every_request_around_the_coming_and_going_of_a_group_member_is_answered(
    nats_url: str, bus: Bus, call_id: str
) -> None:
    request = AllocateLeg(call_id=call_id, main_track="m", server_track="s")
    async with Bus.connect(NatsConfig(url=nats_url), service="worker", instance="worker-1") as worker:
        for _ in range(20):
            member = Member(worker)
            await member.come()

            await bus.request(request)  # heard from the flush on
            with pytest.raises((Refused, NoResponder)):  # and, as it leaves, refused or not taken, never forgotten
                await bus.request(request)
            await asyncio.gather(*member.leaving)
