"""What `/iceservers` tells (protocol section 1.3, G6)."""

from dialbus.config import IceServer
from gateway.iceservers import ice_servers


def test_nothing_configured_is_one_public_stun_server() -> None:
    assert ice_servers(None) == [{"urls": ["stun:stun.l.google.com:19302"]}]


def test_an_empty_list_stays_empty() -> None:
    assert ice_servers([]) == []


def test_urls_are_lists_and_absent_keys_are_left_out() -> None:
    configured = [
        IceServer.model_validate({"urls": "turn:192.0.2.1,turns:192.0.2.1", "username": "u", "credential": "c"}),
        IceServer(urls=["stun:192.0.2.2"]),
    ]
    assert ice_servers(configured) == [
        {"urls": ["turn:192.0.2.1", "turns:192.0.2.1"], "username": "u", "credential": "c"},
        {"urls": ["stun:192.0.2.2"]},
    ]
