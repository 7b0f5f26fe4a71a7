"""Headers, Via, CSeq, writing, and responses made from requests."""

from collections.abc import Callable

import pytest

from sip_ua.sip.grammar import GrammarError
from sip_ua.sip.headers import COMPACT_FORMS, Headers
from sip_ua.sip.message import CSeq, Request, Response, Via, parse_cseq, parse_via, response_to, stamp_received, write
from sip_ua.sip.uri import parse_uri

INVITE = Request(
    "INVITE",
    parse_uri("sip:bot@pbx.example.net"),
    Headers(
        [
            ("v", "SIP/2.0/UDP 10.0.0.1:5060;rport;branch=z9hG4bK1, SIP/2.0/TCP [::1];branch=z9hG4bK0"),
            ("f", "<sip:ada@example.net>;tag=a"),
            ("t", "<sip:bot@pbx.example.net>"),
            ("i", "id"),
            ("CSEQ", "1 INVITE"),
            ("record-route", "<sip:p1;lr>, <sip:p2;lr>"),
            ("Timestamp", "54"),
            ("m", '"x, y" <sip:ada@10.0.0.1>;q=1, <sip:ada@10.0.0.2>'),
        ]
    ),
    b"v=0\r\n",
)


def test_names_are_case_blind_and_compact_forms_are_expanded() -> None:
    headers = Headers([("v", "1"), ("VIA", "2"), ("x-own", "3"), ("call-id", "4"), ("max-forwards", "5")])

    assert headers.lines() == (
        ("Via", "1"),
        ("Via", "2"),
        ("x-own", "3"),
        ("Call-ID", "4"),
        ("Max-Forwards", "5"),
    )
    assert headers.get("V") == headers.get("via") == "1"
    assert headers.get_all("vIa") == ("1", "2")
    assert "i" in headers
    assert "CALL-ID" in headers
    assert "To" not in headers
    assert 5 not in headers
    assert Headers([("X-OWN", "3")]) == Headers([("x-own", "3")])


@pytest.mark.parametrize(("short", "full"), sorted(COMPACT_FORMS.items()))
def test_each_compact_form(short: str, full: str) -> None:
    assert Headers([(short, "x")]).get(full) == "x"
    assert Headers([(full.lower(), "x")]).lines() == ((full, "x"),)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Contact", '"a, b" <sip:a@b>, <sip:c,d@e>', ('"a, b" <sip:a@b>', "<sip:c,d@e>")),
        ("Contact", '"a \\", b" <sip:a@b>', ('"a \\", b" <sip:a@b>',)),
        ("Contact", '"open, <sip:a@b>', ('"open, <sip:a@b>',)),
        ("Route", "<sip:a;lr>,<sip:b;lr>", ("<sip:a;lr>", "<sip:b;lr>")),
        ("Supported", "", ()),
        ("Allow", "INVITE, ACK ,BYE", ("INVITE", "ACK", "BYE")),
        ("Allow", "INVITE,,ACK", ("INVITE", "", "ACK")),
        ("Date", "Sat, 13 Nov 2010 23:29:00 GMT", ("Sat, 13 Nov 2010 23:29:00 GMT",)),
        ("WWW-Authenticate", 'Digest realm="a", nonce="b"', ('Digest realm="a", nonce="b"',)),
    ],
)
def test_comma_lists_are_split_where_commas_separate(name: str, value: str, expected: tuple[str, ...]) -> None:
    assert Headers([(name, value)]).get_all(name) == expected


def test_changes_make_copies() -> None:
    headers = Headers([("Via", "1"), ("To", "t"), ("Via", "2")])

    assert headers.with_("via", "9").lines() == (("Via", "9"), ("To", "t"))
    assert headers.with_("From", "f").lines()[-1] == ("From", "f")
    assert headers.adding("Via", "3").get_all("Via") == ("1", "2", "3")
    assert headers.without("v").lines() == (("To", "t"),)
    assert len(headers) == 3
    assert len({headers, Headers(headers.lines())}) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("X", "a\r\nVia: evil"), ("X", "a\nb"), ("X", "a\r"), ("X: y", "z"), ("", "z")]
)
def test_no_value_can_start_a_header(name: str, value: str) -> None:
    with pytest.raises(GrammarError):
        Headers([(name, value)])
    with pytest.raises(GrammarError):
        Headers().adding(name, value)


def test_accessors() -> None:
    assert INVITE.via == Via("UDP", "10.0.0.1", 5060, "z9hG4bK1", (("rport", None),))
    assert [via.host for via in INVITE.vias] == ["10.0.0.1", "::1"]
    assert [str(contact.uri) for contact in INVITE.contacts] == ["sip:ada@10.0.0.1", "sip:ada@10.0.0.2"]
    assert (INVITE.call_id, INVITE.cseq, INVITE.from_tag, INVITE.to_tag) == ("id", CSeq(1, "INVITE"), "a", None)
    assert (INVITE.max_forwards, INVITE.content_type, INVITE.routes) == (None, None, ())
    assert [route.uri.host for route in INVITE.record_routes] == ["p1", "p2"]
    typed = Response(200, "OK", Headers([("c", "Application/SDP ; charset=utf-8")]))
    assert typed.content_type == "application/sdp"
    for name in ("via", "cseq", "call_id", "from_", "to"):
        with pytest.raises(GrammarError):
            getattr(typed, name)


def test_content_length_is_always_right() -> None:
    lying = Request("OPTIONS", INVITE.uri, Headers([("l", "99"), ("To", "<sip:a@b>")]), b"abc")

    assert write(lying) == (b"OPTIONS sip:bot@pbx.example.net SIP/2.0\r\nTo: <sip:a@b>\r\nContent-Length: 3\r\n\r\nabc")
    assert write(Response(486, "Busy Here", Headers())) == b"SIP/2.0 486 Busy Here\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "build",
    [
        lambda: Request("INVITE x", INVITE.uri, Headers()),
        lambda: Response(99, "", Headers()),
        lambda: Response(700, "", Headers()),
        lambda: Response(200, "OK\r\nVia: x", Headers()),
    ],
)
def test_start_lines_cannot_be_built_wrong(build: Callable[[], object]) -> None:
    with pytest.raises(GrammarError):
        build()


def test_a_response_copies_what_rfc_3261_8_2_6_says() -> None:
    ringing = response_to(INVITE, 180, to_tag="srv", headers=[("Contact", "<sip:bot@10.0.0.9>")])

    assert (ringing.status, ringing.reason) == (180, "Ringing")
    assert ringing.headers.get_all("Via") == INVITE.headers.get_all("Via")
    assert ringing.from_ == INVITE.from_
    assert ringing.to_tag == "srv"
    assert (ringing.call_id, ringing.cseq) == ("id", CSeq(1, "INVITE"))
    assert ringing.record_routes == INVITE.record_routes
    assert [str(contact.uri) for contact in ringing.contacts] == ["sip:bot@10.0.0.9"]
    assert "Timestamp" not in ringing.headers


def test_only_responses_that_form_dialogs_carry_record_route() -> None:
    assert "Record-Route" not in response_to(INVITE, 100).headers
    assert "Record-Route" not in response_to(INVITE, 486).headers
    bye = Request("BYE", INVITE.uri, INVITE.headers.with_("CSeq", "2 BYE"))
    assert "Record-Route" not in response_to(bye, 200).headers


def test_trying_returns_the_timestamp_and_adds_no_tag_by_itself() -> None:
    trying = response_to(INVITE, 100)

    assert trying.headers.get("Timestamp") == "54"
    assert trying.to_tag is None


def test_the_tag_of_the_request_wins() -> None:
    within = Request("BYE", INVITE.uri, INVITE.headers.with_("To", "<sip:b@c>;tag=mine"))

    assert response_to(within, 481, to_tag="other").to_tag == "mine"


def test_unknown_statuses_and_own_reasons() -> None:
    assert response_to(INVITE, 499).reason == "Unknown"
    assert response_to(INVITE, 400, "Missing Contact", body=b"x").reason == "Missing Contact"


@pytest.mark.parametrize(
    ("via", "host", "expected"),
    [
        ("SIP/2.0/UDP h;rport;branch=z9hG4bK1", "192.0.2.1", "received=192.0.2.1;rport=7"),
        ("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport", "192.0.2.1", "received=192.0.2.1;rport=7"),
        ("SIP/2.0/UDP h;branch=z9hG4bK1", "192.0.2.1", "received=192.0.2.1"),
        ("SIP/2.0/UDP h;branch=z9hG4bK1;rport", "2001:db8::1", "received=2001:db8::1;rport=7"),
        ("SIP/2.0/UDP h;branch=z9hG4bK1;received=evil", "192.0.2.1", "received=192.0.2.1"),
        ("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", "192.0.2.1", ""),
    ],
)
def test_received_and_rport_are_recorded(via: str, host: str, expected: str) -> None:
    assert str(parse_via(via).stamped(host, 7)).partition("branch=z9hG4bK1")[2] == (expected and f";{expected}")


def test_stamping_touches_the_topmost_via_alone() -> None:
    stamped = stamp_received(INVITE, "192.0.2.7", 40000)

    assert (stamped.via.received, stamped.via.rport) == ("192.0.2.7", 40000)
    assert stamped.vias[1:] == INVITE.vias[1:]
    assert stamped.headers.without("Via") == INVITE.headers.without("Via")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIP/2.0/UDP",
        "SIP/3.0/UDP h",
        "SIP/2.0/UDP h:",
        "SIP/2.0/UDP h:0",
        "SIP/2.0/UDP h;branch",
        "HTTP/2.0/UDP h",
        "SIP/2.0/UDP h;;branch=x",
        "SIP/2.0/UDP h h",
        "SIP/2.0/UDP [::1",
        "SIP/2.0/UDP h;rport=x",
        "SIP/2.0/UDP 1.2.3",
        "SIP/2.0/UDP h:123456",
        "SIP/2.0/UDP h;received=@",
        "SIP/2.0/UDP h;rport=99999",
    ],
)
def test_broken_vias_are_refused(text: str) -> None:
    with pytest.raises(GrammarError):
        parse_via(text)


@pytest.mark.parametrize("text", ["SIP/2.0/UDP h:5060;branch=z9hG4bK1;rport", "SIP/2.0/TLS [::1];branch=x;ttl=1"])
def test_vias_come_back(text: str) -> None:
    assert str(parse_via(text)) == text


@pytest.mark.parametrize("text", ["", "1", "INVITE", "-1 INVITE", "2147483648 INVITE", "1 IN VITE", "١ INVITE"])
def test_broken_cseqs_are_refused(text: str) -> None:
    with pytest.raises(GrammarError):
        parse_cseq(text)


def test_cseqs() -> None:
    assert parse_cseq("0009 \t INVITE") == CSeq(9, "INVITE")
    assert str(CSeq(2147483647, "BYE")) == "2147483647 BYE"
    assert parse_cseq("0" * 5000 + "1 ACK").number == 1


def test_a_value_is_parsed_once_also_for_copies_with_other_lines() -> None:
    headers = Headers([("Via", "SIP/2.0/UDP a, SIP/2.0/UDP b"), ("CSeq", "1 INVITE"), ("X", "y")])
    asked: list[str] = []

    def parse(value: str) -> str:
        asked.append(value)
        return value.upper()

    headers.parsed("Via", parse)
    for copy in (headers, headers.without("X"), headers.adding("X", "z"), headers.with_("CSeq", "2 BYE")):
        assert copy.parsed("via", parse) == ("SIP/2.0/UDP A", "SIP/2.0/UDP B")
        assert copy.first("v", parse) == "SIP/2.0/UDP A"
    assert asked == ["SIP/2.0/UDP a", "SIP/2.0/UDP b"]
    assert headers.with_line(0, "SIP/2.0/UDP c").parsed("Via", parse) == ("SIP/2.0/UDP C",)
    assert headers.without("Via").first("Via", parse) is None
    assert headers.adding("Via", "SIP/2.0/UDP d").parsed("Via", parse)[-1] == "SIP/2.0/UDP D"
