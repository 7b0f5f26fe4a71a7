"""The transaction machines against the figures of RFC 3261 §17 and RFC 6026, and the layer that holds them."""

from dataclasses import replace

import pytest

from sip_ua.sip.identity import client_key, server_key
from sip_ua.sip.message import Request, Response, response_to
from sip_ua.sip.parser import parse
from sip_ua.sip.timers import Timers
from sip_ua.sip.transaction import (
    INVITE_CLIENT,
    INVITE_SERVER,
    NON_INVITE_CLIENT,
    NON_INVITE_SERVER,
    Deliver,
    Effect,
    Event,
    InviteClientTransaction,
    InviteServerTransaction,
    NonInviteClientTransaction,
    NonInviteServerTransaction,
    Send,
    State,
    Table,
    Terminated,
    TimedOut,
    Transaction,
    TransportFailed,
)
from sip_ua.sip.transaction_layer import Address, Failed, Finished, Received, TransactionLayer, Transmit


def request(method: str = "INVITE", *, branch: str = "z9hG4bKone", cseq: int = 1, extra: str = "") -> Request:
    text = (
        f"{method} sip:4000@192.0.2.20 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.15:5062;branch={branch};rport\r\n"
        f"{extra}Max-Forwards: 70\r\nFrom: <sip:7455@192.0.2.15>;tag=b81Fe0\r\nTo: <sip:4000@192.0.2.20>\r\n"
        f"Call-ID: k7Qm2x9@192.0.2.15\r\nCSeq: {cseq} {method}\r\nContact: <sip:7455@192.0.2.15:5062>\r\n\r\n"
    )
    message = parse(text.encode())
    assert isinstance(message, Request)
    return message


def ack_of(response: Response, branch: str = "z9hG4bKone") -> Request:
    ack = request("ACK", branch=branch)
    return replace(ack, headers=ack.headers.with_("To", response.headers.get("To") or ""))


INVITE = request()
OPTIONS = request("OPTIONS")
TRYING = response_to(INVITE, 100)
RINGING = response_to(INVITE, 180, to_tag="t1")
OK = response_to(INVITE, 200, to_tag="t1")
BUSY = response_to(INVITE, 486, to_tag="t1")
OPTIONS_OK = response_to(OPTIONS, 200, to_tag="t1")

Log = list[tuple[float, Effect]]


def play_silence(transaction: Transaction, until: float, log: Log | None = None) -> Log:
    """Jump from deadline to deadline while nothing arrives."""
    log = [] if log is None else log
    while (due := transaction.deadline) is not None and due <= until:
        log += [(due, effect) for effect in transaction.tick(due)]
    return log


def started(transaction: InviteClientTransaction | NonInviteClientTransaction, until: float) -> Log:
    return play_silence(transaction, until, [(0.0, effect) for effect in transaction.start(0.0)])


def instants(log: Log, effect: Effect) -> list[float]:
    return [at for at, seen in log if seen == effect]


def test_unanswered_invite_over_udp_is_resent_with_doubling_gaps_until_timer_b() -> None:
    log = started(InviteClientTransaction(INVITE, Timers(), reliable=False), until=60.0)
    assert instants(log, Send(INVITE)) == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert log[-2:] == [(32.0, TimedOut(Event.TIMER_B)), (32.0, Terminated())]


def test_unanswered_invite_over_tcp_is_sent_once_and_given_up_at_timer_b() -> None:
    log = started(InviteClientTransaction(INVITE, reliable=True), until=60.0)
    assert log == [(0.0, Send(INVITE)), (32.0, TimedOut(Event.TIMER_B)), (32.0, Terminated())]


def test_unanswered_request_over_udp_is_resent_with_gaps_up_to_t2_until_timer_f() -> None:
    log = started(NonInviteClientTransaction(OPTIONS, reliable=False), until=60.0)
    assert instants(log, Send(OPTIONS)) == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert log[-2:] == [(32.0, TimedOut(Event.TIMER_F)), (32.0, Terminated())]


def test_request_with_provisional_response_is_resent_every_t2_until_timer_f() -> None:
    transaction = NonInviteClientTransaction(OPTIONS, reliable=False)
    transaction.start(0.0)
    assert transaction.receive(response_to(OPTIONS, 100), 0.1) == [Deliver(response_to(OPTIONS, 100))]
    log = play_silence(transaction, until=60.0)
    assert instants(log, Send(OPTIONS)) == [0.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5]
    assert log[-2:] == [(32.0, TimedOut(Event.TIMER_F)), (32.0, Terminated())]


def test_smaller_t1_scales_every_gap() -> None:
    log = started(InviteClientTransaction(INVITE, Timers(t1=0.1), reliable=False), until=60.0)
    assert instants(log, Send(INVITE)) == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3])
    assert log[-1][0] == pytest.approx(6.4)


def test_provisional_response_stops_the_invite_and_180_s_limit_leaves_room_for_cancel() -> None:
    transaction = InviteClientTransaction(INVITE, reliable=False)
    transaction.start(0.0)
    assert transaction.receive(TRYING, 0.2) == [Deliver(TRYING)]
    assert transaction.receive(RINGING, 1.0) == [Deliver(RINGING)]
    log = play_silence(transaction, until=300.0)
    assert log == [
        (180.2, TimedOut(Event.PROCEEDING_LIMIT)),
        (212.2, TimedOut(Event.TIMER_B)),
        (212.2, Terminated()),
    ]


def test_cancelled_invite_is_given_up_64_t1_after_the_cancel() -> None:
    transaction = InviteClientTransaction(INVITE, reliable=False)
    transaction.start(0.0)
    transaction.receive(RINGING, 1.0)
    transaction.cancelled(5.0)
    assert play_silence(transaction, until=300.0) == [(37.0, TimedOut(Event.TIMER_B)), (37.0, Terminated())]


def test_refused_invite_is_acknowledged_with_its_branch_its_routes_and_the_tag_of_the_response() -> None:
    invite = request(extra="Route: <sip:p1.example;lr>\r\nRoute: <sip:p2.example;lr>\r\n")
    transaction = InviteClientTransaction(invite, reliable=False)
    transaction.start(0.0)
    ack, delivered = transaction.receive(response_to(invite, 486, to_tag="x9"), 1.0)
    assert isinstance(ack, Send)
    assert isinstance(ack.message, Request)
    assert (ack.message.method, ack.message.uri, str(ack.message.cseq)) == ("ACK", invite.uri, "1 ACK")
    assert ack.message.vias == (invite.via,)
    assert ack.message.routes == invite.routes
    assert (ack.message.from_tag, ack.message.to_tag, ack.message.call_id) == ("b81Fe0", "x9", invite.call_id)
    assert isinstance(delivered, Deliver)


def test_copies_of_a_refusal_are_acknowledged_but_not_delivered_until_timer_d() -> None:
    transaction = InviteClientTransaction(INVITE, reliable=False)
    transaction.start(0.0)
    ack = transaction.receive(BUSY, 1.0)[0]
    assert transaction.receive(BUSY, 2.0) == [ack]
    assert play_silence(transaction, until=99.0) == [(33.0, Terminated())]


def test_every_2xx_goes_up_until_timer_m() -> None:
    transaction = InviteClientTransaction(INVITE, reliable=False)
    transaction.start(0.0)
    other_fork = response_to(INVITE, 200, to_tag="t2")
    assert transaction.receive(OK, 1.0) == [Deliver(OK)]
    assert transaction.receive(OK, 1.5) == [Deliver(OK)]
    assert transaction.receive(other_fork, 2.0) == [Deliver(other_fork)]
    assert play_silence(transaction, until=99.0) == [(33.0, Terminated())]


@pytest.mark.parametrize(("reliable", "ended"), [(False, [(6.0, Terminated())]), (True, [])])
def test_answered_request_waits_timer_k_for_copies_only_over_udp(reliable: bool, ended: Log) -> None:
    transaction = NonInviteClientTransaction(OPTIONS, reliable=reliable)
    transaction.start(0.0)
    effects = transaction.receive(OPTIONS_OK, 1.0)
    assert effects == [Deliver(OPTIONS_OK)] + ([Terminated()] if reliable else [])
    assert transaction.receive(OPTIONS_OK, 1.1) == []
    assert play_silence(transaction, until=99.0) == ended


def test_refused_invite_over_tcp_is_over_with_its_ack() -> None:
    transaction = InviteClientTransaction(INVITE, reliable=True)
    transaction.start(0.0)
    assert transaction.receive(BUSY, 1.0)[1:] == [Deliver(BUSY), Terminated()]


def test_invite_server_says_trying_after_200_ms_only_when_the_user_is_silent() -> None:
    silent = InviteServerTransaction(INVITE, reliable=False)
    assert silent.start(0.0) == [Deliver(INVITE)]
    assert play_silence(silent, until=99.0) == [(0.2, Send(TRYING))]
    quick = InviteServerTransaction(INVITE, reliable=False)
    quick.start(0.0)
    assert quick.send(RINGING, 0.1) == [Send(RINGING)]
    assert play_silence(quick, until=99.0) == []
    assert quick.receive(INVITE, 3.0) == [Send(RINGING)]


def test_copy_of_an_invite_before_any_answer_is_absorbed() -> None:
    transaction = InviteServerTransaction(INVITE, reliable=False)
    transaction.start(0.0)
    assert transaction.receive(INVITE, 0.1) == []


def test_final_failure_is_resent_until_timer_h_when_no_ack_comes() -> None:
    transaction = InviteServerTransaction(INVITE, reliable=False)
    transaction.start(0.0)
    assert transaction.send(BUSY, 0.0) == [Send(BUSY)]
    log = play_silence(transaction, until=99.0)
    assert instants(log, Send(BUSY)) == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert log[-2:] == [(32.0, TimedOut(Event.TIMER_H)), (32.0, Terminated())]


def test_final_failure_over_tcp_is_sent_once() -> None:
    transaction = InviteServerTransaction(INVITE, reliable=True)
    transaction.start(0.0)
    transaction.send(BUSY, 0.0)
    assert play_silence(transaction, until=99.0) == [(32.0, TimedOut(Event.TIMER_H)), (32.0, Terminated())]


def test_ack_ends_the_resending_and_its_copies_are_absorbed_for_timer_i() -> None:
    transaction = InviteServerTransaction(INVITE, reliable=False)
    transaction.start(0.0)
    transaction.send(BUSY, 0.0)
    assert transaction.receive(INVITE, 0.3) == [Send(BUSY)]
    assert transaction.receive(ack_of(BUSY), 1.0) == []
    assert transaction.receive(ack_of(BUSY), 2.0) == []
    assert play_silence(transaction, until=99.0) == [(6.0, Terminated())]


def test_accepted_invite_absorbs_copies_and_repeats_only_what_the_user_sends_until_timer_l() -> None:
    transaction = InviteServerTransaction(INVITE, reliable=False)
    transaction.start(0.0)
    assert transaction.send(OK, 1.0) == [Send(OK)]
    assert transaction.receive(INVITE, 1.2) == []
    assert transaction.send(OK, 1.5) == [Send(OK)]
    assert transaction.send(BUSY, 1.6) == []
    assert transaction.receive(ack_of(OK), 1.7) == [Deliver(ack_of(OK))]
    assert play_silence(transaction, until=99.0) == [(33.0, Terminated())]


def test_non_invite_server_answers_copies_from_its_state_until_timer_j() -> None:
    transaction = NonInviteServerTransaction(OPTIONS, reliable=False)
    assert transaction.start(0.0) == [Deliver(OPTIONS)]
    assert transaction.receive(OPTIONS, 0.5) == []
    assert transaction.send(OPTIONS_OK, 1.0) == [Send(OPTIONS_OK)]
    assert transaction.receive(OPTIONS, 1.5) == [Send(OPTIONS_OK)]
    assert transaction.send(BUSY, 1.6) == []
    assert play_silence(transaction, until=99.0) == [(33.0, Terminated())]


def test_transport_error_ends_a_client_and_leaves_an_invite_server_alive() -> None:
    client = InviteClientTransaction(INVITE, reliable=False)
    client.start(0.0)
    assert client.transport_failed(0.0) == [TransportFailed(), Terminated()]
    assert client.deadline is None
    server = InviteServerTransaction(INVITE, reliable=False)
    server.start(0.0)
    server.send(OK, 1.0)
    assert server.transport_failed(1.0) == [TransportFailed()]
    assert server.state is State.ACCEPTED


@pytest.mark.parametrize("table", [INVITE_CLIENT, NON_INVITE_CLIENT, INVITE_SERVER, NON_INVITE_SERVER])
def test_every_state_of_a_table_leads_to_its_end(table: Table) -> None:
    before = {state for (state, _), (after, _) in table.items() if after is State.TERMINATED}
    while grown := {s for (s, _), (after, _) in table.items() if after in before} - before:
        before |= grown
    assert {state for state, _ in table} <= before
    assert State.TERMINATED not in {state for state, _ in table}


# The layer.

PEER = Address("192.0.2.15", 5062)


def layer() -> TransactionLayer:
    return TransactionLayer(new_tag=lambda: "ours")


def arrivals(effects: list[object]) -> list[str]:
    return [effect.message.cseq.method for effect in effects if isinstance(effect, Received)]


def test_request_comes_up_once_with_received_and_rport_and_its_response_goes_back_there() -> None:
    ours = layer()
    natted = Address("203.0.113.9", 40001)
    [came] = ours.receive(OPTIONS, natted, 0.0)
    assert isinstance(came, Received)
    assert isinstance(came.message, Request)
    assert (came.message.via.received, came.message.via.rport) == ("203.0.113.9", 40001)
    answer = response_to(came.message, 200, to_tag="t1")
    assert ours.respond(answer, 0.1) == [Transmit(answer, natted)]
    assert ours.receive(OPTIONS, natted, 0.2) == [Transmit(answer, natted)]


def test_response_without_rport_goes_to_the_port_of_via() -> None:
    plain = parse(
        b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP phone.example:5070;branch=z9hG4bKq\r\nMax-Forwards: 70\r\n"
        b"From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n"
    )
    ours = layer()
    [came] = ours.receive(plain, Address("198.51.100.7", 33333), 0.0)
    assert isinstance(came, Received)
    assert isinstance(came.message, Request)
    [sent] = ours.respond(response_to(came.message, 200), 0.0)
    assert isinstance(sent, Transmit)
    assert sent.destination == Address("198.51.100.7", 5070)


def test_cancel_is_delivered_with_the_invite_it_is_for() -> None:
    ours = layer()
    [came] = ours.receive(INVITE, PEER, 0.0)
    assert isinstance(came, Received)
    [cancel] = ours.receive(request("CANCEL"), PEER, 1.0)
    assert isinstance(cancel, Received)
    assert cancel.cancels == came.message


def test_cancel_for_nothing_is_answered_481_and_not_delivered() -> None:
    [sent] = layer().receive(request("CANCEL"), PEER, 0.0)
    assert isinstance(sent, Transmit)
    assert isinstance(sent.message, Response)
    assert (sent.message.status, sent.message.to_tag) == (481, "ours")


def test_same_request_by_another_way_is_answered_482() -> None:
    ours = layer()
    ours.receive(INVITE, PEER, 0.0)
    [sent] = ours.receive(request(branch="z9hG4bKtwo"), PEER, 0.1)
    assert isinstance(sent, Transmit)
    assert isinstance(sent.message, Response)
    assert sent.message.status == 482
    assert arrivals(list(ours.receive(request(branch="z9hG4bKthree", cseq=2), PEER, 0.2))) == ["INVITE"]


def test_ack_to_a_refusal_is_absorbed_and_ack_to_a_2xx_goes_up() -> None:
    ours = layer()
    [came] = ours.receive(INVITE, PEER, 0.0)
    assert isinstance(came, Received)
    assert isinstance(came.message, Request)
    ours.respond(response_to(came.message, 486, to_tag="t1"), 0.1)
    assert ours.receive(ack_of(BUSY), PEER, 0.2) == []
    assert arrivals(list(ours.receive(ack_of(OK, branch="z9hG4bKack"), PEER, 0.3))) == ["ACK"]


def test_request_of_a_peer_before_rfc_3261_is_recognised_without_a_magic_branch() -> None:
    ours = layer()
    old = request(branch="1")
    assert arrivals(list(ours.receive(old, PEER, 0.0))) == ["INVITE"]
    assert ours.receive(old, PEER, 0.5) == []
    assert arrivals(list(ours.receive(request(branch="1", cseq=2), PEER, 1.0))) == ["INVITE"]


def test_cancel_of_ours_goes_where_the_invite_went() -> None:
    ours = layer()
    ours.request(INVITE, PEER, 0.0)
    ours.receive(RINGING, PEER, 0.5)
    cancel = request("CANCEL")
    assert ours.request(cancel, Address("198.51.100.99", 5060), 1.0) == [Transmit(cancel, PEER)]


def test_response_nobody_waits_for_goes_up_without_key() -> None:
    assert layer().receive(OK, PEER, 0.0) == [Received(OK, PEER, None)]


def test_silence_and_transport_failure_come_up_as_408_and_503() -> None:
    ours = layer()
    ours.request(OPTIONS, PEER, 0.0)
    effects = []
    while (due := ours.deadline) is not None and due <= 32.0:
        effects += ours.tick(due)
    key = client_key(OPTIONS)
    assert effects[-2:] == [Failed(OPTIONS, key, 408, Event.TIMER_F), Finished(key, OPTIONS)]
    assert len(ours) == 0
    ours.request(INVITE, PEER, 40.0)
    key = client_key(INVITE)
    assert ours.transport_failed(INVITE, 40.0) == [Failed(INVITE, key, 503, None), Finished(key, INVITE)]


def test_respond_to_a_transaction_that_is_over_sends_nothing() -> None:
    assert layer().respond(BUSY, 0.0) == []


def test_a_request_that_is_answered_once_is_forgotten_and_its_copy_is_a_new_one() -> None:
    ours, peer = layer(), Address("192.0.2.15", 5062)
    [came] = ours.receive(INVITE, peer, 0.0)
    assert isinstance(came, Received)
    assert isinstance(came.message, Request)
    refusal = response_to(came.message, 503, None, "ours")

    sent, over = ours.answer_once(refusal)

    assert sent == Transmit(refusal, peer)
    assert isinstance(over, Finished)
    assert len(ours) == 0
    assert ours.deadline is None
    assert ours.tick(100.0) == []
    assert ours.answer_once(refusal) == []
    assert arrivals(list(ours.receive(INVITE, peer, 0.5))) == ["INVITE"]


def test_heap_holds_every_deadline_and_ends_empty() -> None:
    ours = layer()
    for number in range(2000):
        ours.request(request("OPTIONS", branch=f"z9hG4bK{number}"), PEER, number / 1000)
    assert ours.deadline == 0.5
    for number in range(0, 2000, 2):
        answered = response_to(request("OPTIONS", branch=f"z9hG4bK{number}"), 200)
        ours.receive(answered, PEER, 2.0)
    failed = 0
    while (due := ours.deadline) is not None:
        failed += sum(isinstance(effect, Failed) for effect in ours.tick(due))
    assert (failed, len(ours)) == (1000, 0)


def test_keys_of_both_sides_differ_and_ack_shares_the_key_of_its_invite() -> None:
    assert client_key(INVITE) != server_key(INVITE)
    assert server_key(ack_of(BUSY)) == server_key(INVITE)
    assert client_key(RINGING) == client_key(INVITE)
