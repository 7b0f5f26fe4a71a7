"""Nobody gets much more from us than was sent in its name."""

from sip_ua.ua.balance import ADVANCE_BYTES, MAX_HOSTS, PER_S, Balance


def test_a_host_gets_what_it_sent_and_an_advance_that_comes_back_with_time() -> None:
    balance = Balance()

    assert balance.may_send("a", ADVANCE_BYTES, 0)
    assert not balance.may_send("a", 1, 0)
    balance.received("a", 300, 0)
    assert not balance.may_send("a", 301, 0)
    assert balance.may_send("a", 300, 0)
    assert balance.may_send("a", PER_S, 1)
    assert not balance.may_send("a", 1, 1)
    assert balance.may_send("b", ADVANCE_BYTES, 1)  # another's account


def test_nothing_is_saved_up_and_many_hosts_are_no_memory() -> None:
    balance = Balance()
    balance.received("a", 1_000_000, 0)
    assert balance.may_send("a", ADVANCE_BYTES, 0)
    assert not balance.may_send("a", 1, 0)
    for host in range(2 * MAX_HOSTS):
        balance.received(str(host), 1, 0)
    assert len(balance._accounts) == MAX_HOSTS
