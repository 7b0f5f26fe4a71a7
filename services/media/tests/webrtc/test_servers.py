"""URLs of STUN and TURN servers."""

import pytest

from dialbus.config import IceServer
from media.webrtc.servers import IceServers, StunServer, TurnServer, parse_servers


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("stun:stun.example.org", StunServer("stun.example.org", 3478)),
        ("STUN:192.0.2.1:19302", StunServer("192.0.2.1", 19302)),
        ("stun:[2001:db8::1]:3479", StunServer("2001:db8::1", 3479)),
        ("turn:turn.example.org", TurnServer("turn.example.org", 3478, "udp", False, "u", "p")),
        ("turn:turn.example.org:80?transport=tcp", TurnServer("turn.example.org", 80, "tcp", False, "u", "p")),
        ("turns:turn.example.org", TurnServer("turn.example.org", 5349, "tcp", True, "u", "p")),
    ],
)
def test_a_url_names_a_server(url: str, server: StunServer | TurnServer) -> None:
    found, faults = parse_servers([IceServer(urls=[url, url], username="u", credential="p")])

    assert not faults
    assert found == IceServers(stun=(server,)) if isinstance(server, StunServer) else IceServers(turn=(server,))


@pytest.mark.parametrize(
    "url", ["", "http://x", "stun:", "stun:a b", "stun:x:0", "stun:x:70000", "stuns:x", "turns:x?transport=udp",
            "turn:x?transport=sctp", "stun:x\r\ny"]
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_left_out_and_named(url: str) -> None:
    found, faults = parse_servers([IceServer(urls=[url, "stun:good"])])

    assert found == IceServers(stun=(StunServer("good", 3478),))
    assert len(faults) == 1
    assert faults[0].startswith(url)


def test_a_credential_is_not_told() -> None:
    server = TurnServer("h", 1, "udp", False, "user", "secret")

    assert "secret" not in f"{server} {server!r}"
