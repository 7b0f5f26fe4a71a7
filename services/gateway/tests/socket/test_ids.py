"""What a socket's URL asks for (protocol section 1.1), and file names of session ids (9.1)."""

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.socket.ids import SocketQuery, generated, parse_query, readings

DEFAULTS = SocketQuery()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", DEFAULTS),
        ("id=", DEFAULTS),
        ("dump=false", SocketQuery(dump=False)),
        ("dump_events=0", SocketQuery(dump=False)),
        ("dumpEvents=No", SocketQuery(dump=False)),
        ("dump=maybe", DEFAULTS),
        ("dump=", DEFAULTS),
        ("dump=TRUE&dump_events=false", DEFAULTS),
        ("ping=0", SocketQuery(ping_s=0)),
        ("pingInterval=5", SocketQuery(ping_s=5)),
        ("ping_interval=7", SocketQuery(ping_s=7)),
        ("ping=5&pingInterval=7", SocketQuery(ping_s=5)),
        ("ping=5s", DEFAULTS),
        ("ping=-1", DEFAULTS),
        ("ping=1.5", DEFAULTS),
        ("ping=%D9%A3", DEFAULTS),  # a digit, but not one of ours
        ("ping=99999999999999", SocketQuery(ping_s=86_400)),
        ("serverSideTrack=srv", SocketQuery(server_side_track="srv")),
        ("server_side_track=a%20b", SocketQuery(server_side_track="a b")),
        ("serverSideTrack=", DEFAULTS),
        ("forward=x&visited=y&dump=true", DEFAULTS),
        ("id=a&id=b", SocketQuery(readings=("a",))),
        ("id=s.1&dump=true", SocketQuery(readings=("s.1",))),
    ],
)
def test_query_in_every_spelling(query: str, expected: SocketQuery) -> None:
    assert parse_query(query) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("plain", ("plain",)),
        ("a+b", ("a+b", "a b")),
        ("a%41", ("a%41", "aA")),
        ("a%2Bb+c", ("a%2Bb+c", "a+b+c", "a+b c")),
        ("100%", ("100%",)),
        ("a=b", ("a=b",)),
    ],
)
def test_id_has_three_readings_in_this_order(raw: str, expected: tuple[str, ...]) -> None:
    assert readings(raw) == expected
    assert parse_query(f"id={raw}").readings == expected


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="&#"), min_size=1))
def test_sip_call_id_is_among_the_readings_however_it_is_escaped(call_id: str) -> None:
    for written in (call_id, quote(call_id, safe=""), quote_plus(call_id), quote(call_id, safe="+@/")):
        assert call_id in parse_query(f"ping=3&id={written}&dump=true").readings


@given(st.text())
def test_any_query_is_understood(text: str) -> None:
    query = parse_query(text)
    assert query.ping_s >= 0
    assert query.server_side_track


def test_new_session_is_named_by_the_percent_decoded_id() -> None:
    assert parse_query("id=a%40b+c").new_id == "a@b+c"
    assert parse_query("ping=1").new_id is None
    assert generated(lambda: "5f0c2c1e") == "s.5f0c2c1e"
