"""Two ends of DTLS-SRTP in memory: what arrives, what is lost, who is refused."""

import time

import pytest

from media.rtp.packet import RtpPacket, pack
from media.webrtc.dtls import DtlsSrtp, DtlsState, Identity

PACKET = pack(RtpPacket(0, False, 1, 160, 7, b"speech" * 20))
CONTROL = bytes.fromhex("80c90001") + (7).to_bytes(4, "big")


def pair(seen_by_server: str | None = None) -> tuple[DtlsSrtp, DtlsSrtp]:
    """Client and server that know each other's fingerprints; the server may be told another one."""
    ours, theirs = Identity(), Identity()
    client = DtlsSrtp(ours, "active", [("sha-256", theirs.fingerprint)])
    server = DtlsSrtp(theirs, "passive", [("sha-256", seen_by_server or ours.fingerprint)])
    return client, server


def exchange(client: DtlsSrtp, server: DtlsSrtp) -> None:
    """Carry datagrams both ways until nobody has more to say."""
    client.start()
    server.start()
    ends = ((client, server), (server, client))
    while sum(_carry(source.take(), target) for source, target in ends):
        pass


def _carry(datagrams: list[bytes], target: DtlsSrtp) -> bool:
    for datagram in datagrams:
        assert len(datagram) <= 1200
        target.receive(datagram)
    return bool(datagrams)


def test_a_handshake_ends_with_keys_for_both_directions() -> None:
    client, server = pair()
    assert client.protect(PACKET, control=False) is None
    assert server.unprotect(PACKET, control=False) is None

    exchange(client, server)

    assert (client.state, server.state) == (DtlsState.OPEN, DtlsState.OPEN)
    for source, target in ((client, server), (server, client)):
        for data, control in ((PACKET, False), (CONTROL, True)):
            protected = source.protect(data, control=control)
            assert protected is not None
            assert protected[12:] != data[12:]
            assert target.unprotect(protected, control=control) == data
            assert target.unprotect(protected, control=control) is None, "a replay"
    assert client.wait_s is None


def test_what_was_changed_or_is_none_is_not_believed() -> None:
    client, server = pair()
    exchange(client, server)
    protected = client.protect(PACKET, control=False)
    assert protected is not None

    assert server.unprotect(protected[:-1] + bytes([protected[-1] ^ 1]), control=False) is None
    assert server.unprotect(b"", control=False) is None
    assert server.unprotect(b"\x80" * 2000, control=False) is None
    assert client.protect(b"short", control=False) is None
    assert server.unprotect(protected, control=False) == PACKET


def test_a_lost_flight_is_sent_again() -> None:
    client, server = pair()
    client.start()
    assert len(client.take()) == 1  # lost on the way
    assert client.wait_s is not None
    assert 0 < client.wait_s <= 1.0

    time.sleep(client.wait_s + 0.01)  # OpenSSL has a clock of its own
    client.tick()
    assert _carry(client.take(), server)
    exchange(client, server)

    assert (client.state, server.state) == (DtlsState.OPEN, DtlsState.OPEN)


def test_another_certificate_than_the_offers_is_refused() -> None:
    client, server = pair(seen_by_server=":".join(["00"] * 32))

    exchange(client, server)

    assert server.state is DtlsState.FAILED
    assert "fingerprint" in server.failure
    assert server.protect(PACKET, control=False) is None


def test_every_known_fingerprint_must_fit_and_one_must_be_known() -> None:
    ours, theirs = Identity(), Identity()
    for fingerprints in ([("sha-1", "AB")], [("sha-256", ours.fingerprint), ("sha-512", "AB")]):
        client = DtlsSrtp(ours, "active", [("sha-256", theirs.fingerprint)])
        server = DtlsSrtp(theirs, "passive", fingerprints)
        exchange(client, server)
        assert server.state is DtlsState.FAILED


def test_a_goodbye_closes_the_other_end() -> None:
    client, server = pair()
    exchange(client, server)

    client.close()
    for datagram in client.take():
        server.receive(datagram)

    assert (client.state, server.state) == (DtlsState.CLOSED, DtlsState.CLOSED)
    client.close()
    assert client.take() == []


@pytest.mark.parametrize("noise", [b"\x16", b"\x16\xfe\xfd" + b"\0" * 40, bytes(range(20, 60)), b"\x17" * 1500])
def test_noise_harms_no_handshake(noise: bytes) -> None:
    client, server = pair()
    client.start()
    server.receive(noise)

    exchange(client, server)

    assert (client.state, server.state) == (DtlsState.OPEN, DtlsState.OPEN)
