"""What heartbeats tell of the workers of an exchange."""

from collections.abc import Callable, Sequence

from dialbus.contracts.session import Heartbeat
from gateway.workers import Start, counts


def beat(service: str, instance: str, **facts: int) -> Heartbeat:
    return Heartbeat(service=service, instance=instance, version="x", in_use=2, started_at="t", facts=facts)


def alive(*services: str) -> Callable[[str], Sequence[Heartbeat]]:
    return lambda wanted: [beat(service, f"{service}-1") for service in services if service == wanted]


def test_counts_are_sums_over_the_workers() -> None:
    told = counts([beat("sip-ua", "one", total=3, transactions_running=4), beat("sip-ua", "two", total=4, failed=1)])
    assert (told["total"], told["failed"], told["runnings"]) == (7, 1, 4)
    transactions = {"running": 4, "finished": 0, "waiting_ack": 0}
    assert told["useragent"] == {"pending": 0, "dialogs": 0, "transactions": transactions}
    assert counts([])["total"] == 0


def test_exchange_begins_when_every_expected_service_is_there_at_one_time_and_stays_begun() -> None:
    start = Start(["gateway", "asr", "tts"])
    assert start.waiting_for(alive()) == ["gateway", "asr", "tts"]
    assert start.waiting_for(alive("tts", "gateway", "media")) == ["asr"]
    assert start.waiting_for(alive("asr", "gateway")) == ["tts"], "it fell silent before the last one was ready"
    assert start.waiting_for(alive("asr", "gateway", "tts")) == []
    assert start.waiting_for(alive()) == [], "what fails afterwards fails by itself"


def test_exchange_that_expects_nobody_has_begun() -> None:
    assert Start([]).waiting_for(alive()) == []
