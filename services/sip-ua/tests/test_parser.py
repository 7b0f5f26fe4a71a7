"""Bytes to messages: torture files, framing, and the promise that nothing but ParseError comes out."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sip_ua.sip.headers import Headers
from sip_ua.sip.message import CSeq, Message, Request, Response, response_to, stamp_received, write
from sip_ua.sip.parser import ParseError, StreamFramer, is_keepalive, parse
from sip_ua.sip.uri import Uri

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TORTURE = Path(__file__).parent / "data" / "torture"
NAMES = sorted(path.stem for path in TORTURE.glob("*.dat"))
GOOD = [name for name in NAMES if not name.startswith("bad_")]
BAD = [name for name in NAMES if name.startswith("bad_")]
STATUS = {"bad_version": 505, "bad_response_version": 505, "bad_scheme": 416, "bad_uri_too_long": 414}
# What a broken message still tells is too little for an answer, or it must not be answered.
UNANSWERED = {
    "bad_no_via",
    "bad_no_from",
    "bad_no_to",
    "bad_no_call_id",
    "bad_no_cseq",
    "bad_response_status",
    "bad_response_version",
    "bad_ack",
    "bad_extra_separators",
    "bad_via_port",
}


def torture(name: str) -> bytes:
    return (TORTURE / f"{name}.dat").read_bytes()


def request(name: str) -> Request:
    message = parse(torture(name))
    assert isinstance(message, Request)
    return message


def read_everything(message: Message) -> None:
    """Every accessor; none may raise on a parsed message."""
    _ = (message.via, message.vias, message.cseq, message.call_id, message.from_, message.to)
    _ = (message.from_tag, message.to_tag, message.contacts, message.max_forwards, message.content_type)
    _ = (message.routes, message.record_routes)
    for name, _value in message.headers.lines():
        message.headers.get_all(name)
    _ = [(via.rport, via.received) for via in message.vias]


@pytest.mark.parametrize("name", GOOD)
def test_odd_but_legal_messages_parse_and_survive_a_round_trip(name: str) -> None:
    message = parse(torture(name))

    read_everything(message)
    assert parse(write(message)) == message


@pytest.mark.parametrize("name", BAD)
def test_illegal_messages_are_refused_and_answered_where_possible(name: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(torture(name))

    assert caught.value.status == STATUS.get(name, 400)
    answer = caught.value.response(to_tag="srv")
    if name in UNANSWERED:
        assert answer is None
    else:
        assert answer is not None
        assert answer.status == caught.value.status
        assert answer.via.branch == "z9hG4bK74b"
        assert answer.headers.get("Call-ID") is not None
        write(answer)


def test_folding_case_and_compact_forms_are_undone() -> None:
    message = request("fold_everything")

    assert message.from_.display_name == 'A Lovelace \\"'
    assert (message.from_tag, message.to_tag) == ("af1", "18t")
    assert message.max_forwards == 68
    assert message.cseq == CSeq(9, "INVITE")
    assert [(via.transport, via.host, via.branch) for via in message.vias] == [
        ("UDP", "192.0.2.4", "390sk"),
        ("TCP", "spindle.example.net", "z9hG4bK9ik"),
        ("UDP", "192.0.2.255", "z9hG4bK302"),
    ]
    assert message.headers.get("X-Folded") == "one two"
    assert message.headers.get("Subject") == ""
    assert message.routes[0].uri.is_loose
    assert message.contacts[0].display_name == 'Quoted ""'
    assert message.contacts[0].param("q") == "0.33"


def test_quoted_text_is_never_taken_for_structure() -> None:
    assert request("display_name_escaped_quote").from_.uri.host == "b"
    assert request("display_name_escaped_quote").from_.display_name == 'A " <evil>, x'
    assert request("tag_inside_quoted_param").from_tag == "af1"
    uri = request("user_with_semicolon_at_question").uri
    assert (uri.user, uri.host, uri.params, uri.headers) == ("user;par=u%40h?x", "example.net", (), ())


def test_a_tel_uri_has_a_number_and_no_host() -> None:
    uri = request("tel_request").uri

    assert (uri.scheme, uri.user, uri.host) == ("tel", "+49-30-123456", "")
    assert uri.param("phone-context") == "example.net"


def test_ipv6_hosts_lose_their_brackets_and_get_them_back() -> None:
    message = request("ipv6_everywhere")

    assert (message.uri.host, message.uri.port) == ("2001:db8::10", 5070)
    assert message.via.received == "2001:db8::9:255"
    assert b"sip:bot@[2001:db8::10]:5070 SIP/2.0" in write(message)


def test_what_follows_the_body_is_dropped() -> None:
    assert request("second_request_behind_the_first").body == b""


def test_contacts_are_those_we_can_call() -> None:
    assert request("star_contact").contacts == ()
    assert [str(contact.uri) for contact in request("foreign_contact_scheme").contacts] == ["sip:ada@192.0.2.4"]


def test_responses_keep_their_reason() -> None:
    message = parse(torture("response_utf8_reason"))
    assert isinstance(message, Response)
    assert message.reason == "= 2**3 * 5**2 но сто"
    empty = parse(torture("response_empty_reason"))
    assert isinstance(empty, Response)
    assert (empty.status, empty.reason) == (100, "")


@pytest.mark.parametrize("name", ["bad_no_from_tag", "bad_cseq_method", "bad_two_from", "bad_latin1"])
def test_answers_to_broken_requests_have_one_of_each_header(name: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(torture(name))

    answer = caught.value.response(to_tag="srv")

    assert answer is not None
    assert answer.to_tag == "srv"
    names = [name for name, _ in answer.headers.lines()]
    assert sorted(names) == ["CSeq", "Call-ID", "From", "To", "Via"]


def test_messages_above_64_kib_are_too_large() -> None:
    big = torture("no_max_forwards").replace(b"Content-Length: 0\r\n", b"") + b"x" * 65536

    with pytest.raises(ParseError) as caught:
        parse(big)

    assert caught.value.status == 513
    assert caught.value.response() is not None


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n", b"\0\0\0\0"])
def test_keepalives_are_told_from_messages(data: bytes) -> None:
    assert is_keepalive(data)
    with pytest.raises(ParseError) as caught:
        parse(data)
    assert caught.value.response() is None


def test_a_message_is_no_keepalive() -> None:
    assert not is_keepalive(torture("leading_crlf"))


EVIL = [
    b"INVITE sip:a@b SIP/2.0\r\nVia: " + b"<" * 60000 + b"\r\n\r\n",
    b"INVITE sip:a@b SIP/2.0\r\nVia: x\r\nContact: " + b'"\\' * 30000 + b"\r\n\r\n",
    b"INVITE tel:" + b"1" * 4000 + b"! SIP/2.0\r\n\r\n",
    b"INVITE sip:a@" + b"a-" * 2000 + b" SIP/2.0\r\n\r\n",
    torture("no_max_forwards").replace(b'"Ada"', b"a " + b" " * 60000),
    torture("no_max_forwards").replace(b"tag=af1", b";" * 60000),
    b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP" + b" " * 60000 + b"\r\n\r\n",
    b"INVITE" + b" SIP/2.0" * 8000 + b"x\r\n\r\n",
    b"X" + b"\r\n " * 20000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("data", EVIL)
@pytest.mark.timeout(2)
def test_hostile_input_takes_linear_time(data: bytes) -> None:
    try:
        read_everything(parse(data))
    except ParseError as error:
        error.response("t")


FRAGMENTS = st.sampled_from(
    [
        b"INVITE sip:a@b SIP/2.0",
        b"SIP/2.0 200 OK",
        b"\r\n",
        b"\r\n\r\n",
        b"Via: SIP/2.0/UDP h;branch=z9hG4bK1",
        b"From: <sip:a@b>;tag=1",
        b"To: <sip:b@c>",
        b"Call-ID: x",
        b"CSeq: 1 INVITE",
        b"Contact: ",
        b"l: 3",
        b'"',
        b"<",
        b">",
        b";",
        b",",
        b"\\",
        b":",
        b"[::1]",
        b"%41",
        b" ",
        b"sip:",
        b"tel:+1",
        b"\xff",
        b"\x00",
    ]
)
SOUP = st.one_of(
    st.binary(max_size=300),
    st.lists(st.one_of(FRAGMENTS, st.binary(max_size=4)), max_size=40).map(b"".join),
    st.lists(FRAGMENTS, max_size=30).map(b"\r\n".join),
)


@PATIENT
@given(SOUP)
def test_any_bytes_become_a_message_or_parse_error(data: bytes) -> None:
    try:
        message = parse(data)
    except ParseError as error:
        answer = error.response(to_tag="t")
        if answer is not None:
            write(answer)
        return
    read_everything(message)
    write(message)


@PATIENT
@given(st.sampled_from(GOOD), st.data())
def test_damaged_messages_become_a_message_or_parse_error(name: str, data: st.DataObject) -> None:
    raw = bytearray(torture(name))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        raw += b"\r\n"
    try:
        message = parse(bytes(raw))
    except ParseError as error:
        error.response(to_tag="t")
        return
    read_everything(message)
    assert parse(write(message)) == message


TOKENS = st.text("abcXYZ019-.!%*_+`'~", min_size=1, max_size=12)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    method = draw(TOKENS.filter(lambda token: token.upper() != "ACK"))
    fields = [
        ("Via", f"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{draw(TOKENS)}"),
        ("From", f"<sip:a@b>;tag={draw(TOKENS)}"),
        ("To", "<sip:b@c>"),
        ("Call-ID", draw(TOKENS)),
        ("CSeq", f"{draw(st.integers(0, 2**31 - 1))} {method}"),
    ]
    fields += [(f"X-{name}", value) for name, value in draw(st.lists(st.tuples(TOKENS, TEXTS), max_size=4))]
    headers, body = Headers(fields), draw(st.binary(max_size=50))
    if draw(st.booleans()):
        return Request(method, Uri("sip", draw(TOKENS).replace("%", "").replace("`", "") or "u", "h"), headers, body)
    return Response(draw(st.integers(100, 699)), draw(TEXTS), headers, body)


@PATIENT
@given(messages())
def test_what_is_written_parses_to_the_same_message(message: Message) -> None:
    assert parse(write(message)) == message


# --- streams


@PATIENT
@given(st.lists(st.sampled_from(["odd_tokens", "compact_headers", "star_contact", "ping"]), max_size=5), st.data())
def test_a_stream_is_cut_the_same_wherever_the_reads_fall(names: list[str], data: st.DataObject) -> None:
    expected = [b"\r\n\r\n" if name == "ping" else torture(name) for name in names]
    stream = b"".join(expected)
    framer, pieces = StreamFramer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        pieces += framer.receive(stream[:size])
        stream = stream[size:]
    assert pieces == expected


def test_a_body_is_waited_for() -> None:
    framer = StreamFramer()
    head = torture("no_max_forwards").replace(b"Content-Length: 0", b"Content-Length: 5")

    assert framer.receive(head + b"ab") == []
    assert framer.receive(b"cdeINVITE") == [head + b"abcde"]


def test_blank_lines_before_a_message_are_skipped() -> None:
    assert StreamFramer().receive(b"\r\n" + torture("compact_headers")) == [torture("compact_headers")]


@pytest.mark.parametrize(
    ("name", "status"),
    [("bad_content_length_garbage", 400), ("bad_content_length_twice", 400), ("leading_crlf", 400)],
)
def test_a_stream_that_cannot_be_cut_is_an_error_with_an_answer(name: str, status: int) -> None:
    with pytest.raises(ParseError) as caught:
        StreamFramer().receive(torture(name).lstrip())
    assert caught.value.status == status
    assert caught.value.response() is not None


def test_a_stream_without_end_of_headers_is_cut_off_at_64_kib() -> None:
    framer = StreamFramer()
    assert framer.receive(b"x" * 65_000) == []
    with pytest.raises(ParseError) as caught:
        framer.receive(b"x" * 1000)
    assert caught.value.status == 513


def with_lines(*lines: str, tag: str = ";tag=a", via: str = "") -> bytes:
    """An OPTIONS with these lines besides what it needs."""
    needed = [f"Via: SIP/2.0/UDP h;branch=z9hG4bK1{via}", f"From: <sip:a@h>{tag}", "To: <sip:b@h>", "Call-ID: i"]
    return "\r\n".join(["OPTIONS sip:b@h SIP/2.0", *needed, "CSeq: 1 OPTIONS", *lines, "", ""]).encode()


def params(count: int) -> str:
    return "".join(f";p{i}" for i in range(count))


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (with_lines(via=params(64)), with_lines(via=params(65))),
        (with_lines(f"Via: SIP/2.0/UDP g{params(64)}"), with_lines(f"Via: SIP/2.0/UDP g{params(65)}")),
        (with_lines(tag=f";tag=a{params(63)}"), with_lines(tag=f";tag=a{params(64)}")),
        (with_lines(f"Contact: <sip:a@h>{params(64)}"), with_lines(f"Contact: <sip:a@h>{params(65)}")),
        (with_lines(f"Contact: <sip:a@h{params(64)}>"), with_lines(f"Contact: <sip:a@h{params(65)}>")),
        (with_lines(f"Route: <sip:a@h>{params(64)}"), with_lines(f"Route: <sip:a@h>{params(65)}")),
        (with_lines(*["Y-: y"] * 251), with_lines(*["Y-: y"] * 252)),
        (with_lines(f"Y-: {';' * 1022}"), with_lines(f"Y-: {';' * 1023}")),
        (with_lines(f"Y-: {',' * 1024}"), with_lines(f"Y-: {',' * 1025}")),
    ],
    ids=lambda data: f"{len(data)} octets",
)
def test_more_parameters_or_headers_than_anybody_needs_are_refused(within: bytes, beyond: bytes) -> None:
    read_everything(parse(within))
    with pytest.raises(ParseError) as caught:
        parse(beyond)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "line", [f"Via: SIP/2.0/UDP g{params(7000)}", f"Supported: {',' * 50_000}", "Y-: y\r\n" * 9000]
)
def test_what_is_not_even_split_is_not_answered(line: str) -> None:
    """The answer would repeat it."""
    with pytest.raises(ParseError) as caught:
        parse(with_lines(line))
    assert caught.value.response("tag") is None


def test_what_we_add_to_a_full_value_does_not_break_it() -> None:
    full = parse(with_lines(via=f";rport{params(63)}"))
    assert isinstance(full, Request)
    stamped = stamp_received(full, "192.0.2.7", 4000)
    assert (stamped.via.received, stamped.via.rport) == ("192.0.2.7", 4000)
    full = parse(with_lines(f"Y-: {params(64)}").replace(b"To: <sip:b@h>", f"To: <sip:b@h>{params(64)}".encode()))
    assert isinstance(full, Request)
    assert response_to(full, 200, to_tag="t").to_tag == "t"
