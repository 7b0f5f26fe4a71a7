"""URIs and name-addrs: grammar, round trips and equivalence."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sip_ua.sip.grammar import GrammarError
from sip_ua.sip.uri import (
    NameAddr,
    UnsupportedScheme,
    Uri,
    escape_user,
    parse_name_addr,
    parse_uri,
)

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sip:alice@example.net", Uri("sip", "alice", "example.net")),
        ("SIPS:alice@example.net:5061", Uri("sips", "alice", "example.net", 5061)),
        ("sip:example.net", Uri("sip", None, "example.net")),
        ("sip:[::1]:5060;lr", Uri("sip", None, "::1", 5060, (("lr", None),))),
        ("sip:a:pw@h", Uri("sip", "a", "h", password="pw")),
        ("sip:a:@h", Uri("sip", "a", "h", password="")),
        ("sip:u;p=1?x@h;transport=tcp", Uri("sip", "u;p=1?x", "h", None, (("transport", "tcp"),))),
        ("sip:a@h?subject=x&to=", Uri("sip", "a", "h", headers=(("subject", "x"), ("to", "")))),
        ("tel:+1-201-555", Uri("tel", "+1-201-555", "")),
        ("tel:911;phone-context=+1", Uri("tel", "911", "", params=(("phone-context", "+1"),))),
        ("sip:a@voice_1.docker", Uri("sip", "a", "voice_1.docker")),
        ("sip:%61@h.", Uri("sip", "%61", "h.")),
    ],
)
def test_uris_parse_and_come_back(text: str, expected: Uri) -> None:
    assert parse_uri(text) == expected
    assert parse_uri(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip",
        "sip:",
        "sip:@h",
        "sip:a@",
        "sip:a@b@c",
        "sip:a b@h",
        "sip:a@h:0",
        "sip:a@h:70000",
        "sip:a@h:",
        "sip:a@h;",
        "sip:a@h;;lr",
        "sip:a@h;x=",
        "sip:a@h;x=1;X=2",
        "sip:a@h?x",
        "sip:a@h?",
        "sip:a@[::1",
        "sip:a@::1",
        "sip:a@[1.2.3.4]",
        "sip:a@1.2.3",
        "sip:a@256.1.1.1",
        "sip:a@-h",
        "sip:a@h..i",
        "sip:ü@h",
        "sip:%zz@h",
        "sip:a%4@h",
        "<sip:a@h>",
        "sip:a@h\r\n",
        "tel:",
        "tel:abc-xyz",
        "tel:-",
        "sip:a@[fe80::1%eth0]",
        " sip:a@h",
        "sip:a@h\n",
        "sip:a@h;x\n",
        "tel:1\n",
        "sip:a@h:5060\n",
        "sip:²@h",
        "sip:a@h:²",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(GrammarError):
        parse_uri(text)


def test_other_schemes_are_told_apart() -> None:
    with pytest.raises(UnsupportedScheme):
        parse_uri("mailto:a@b")


def test_helpers_change_one_thing() -> None:
    uri = parse_uri("sip:a:secret@h;lr;x=1?s=t")

    assert str(uri.without_params("LR")) == "sip:a:secret@h;x=1?s=t"
    assert str(uri.without_params()) == "sip:a:secret@h?s=t"
    assert str(uri.without_headers().without_password()) == "sip:a@h;lr;x=1"
    assert str(uri.with_param("X", "2").with_param("y").without_headers()) == "sip:a:secret@h;lr;x=2;y"
    assert (uri.is_loose, uri.transport, uri.param("x"), uri.param("no")) == (True, None, "1", None)


def test_a_uri_cannot_be_built_wrong() -> None:
    wrong: list[dict[str, Any]] = [{"user": "a b"}, {"host": "h\r\nVia: x"}, {"port": 0}, {"params": (("x;y", None),)}]
    for fields in wrong:
        with pytest.raises(GrammarError):
            Uri(**{"scheme": "sip", "user": "a", "host": "h", **fields})


@PATIENT
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_text_can_be_a_user_part(text: str) -> None:
    uri = Uri("sip", escape_user(text), "h")
    assert parse_uri(str(uri)) == uri
    assert uri.user_text == text


@PATIENT
@given(st.text('sip:tel@[]1af.;=?&%40-_"<> \n', max_size=30).map(lambda text: "sip:" + text))
def test_accepted_uris_come_back_unchanged(text: str) -> None:
    try:
        uri = parse_uri(text)
    except GrammarError:
        return
    assert parse_uri(str(uri)) == uri


@pytest.mark.parametrize(
    ("text", "name", "uri", "tag"),
    [
        ('"A \\" <evil>, x" <sip:a@b>', 'A " <evil>, x', "sip:a@b", None),
        ('<sip:a@b>;x=";tag=evil";tag=ok', "", "sip:a@b", "ok"),
        ('"x;tag=evil"<sip:a@b>;tag=ok', "x;tag=evil", "sip:a@b", "ok"),
        ("<sip:u;tag=evil@h;tag=evil2>;tag=ok", "", "sip:u;tag=evil@h;tag=evil2", "ok"),
        ("sip:a@b;tag=1", "", "sip:a@b", "1"),
        ("sip:a@b ; tag = 1", "", "sip:a@b", "1"),
        ("tel:+1-201;tag=1", "", "tel:+1-201", "1"),
        ("A.  B <sip:a@b> ;tag=1", "A. B", "sip:a@b", "1"),
        ("Ada<sip:a@b>", "Ada", "sip:a@b", None),
        ('"" <sip:a@b>', "", "sip:a@b", None),
        ('"Jörg" <sip:a@[::1]>', "Jörg", "sip:a@[::1]", None),
    ],
)
def test_name_addrs(text: str, name: str, uri: str, tag: str | None) -> None:
    address = parse_name_addr(text)

    assert (address.display_name, str(address.uri), address.tag) == (name, uri, tag)
    assert parse_name_addr(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<>",
        "<sip:a@b",
        "sip:a@b>",
        '"x <sip:a@b>',
        'x" <sip:a@b>',
        "a, b <sip:a@b>",
        "< sip:a@b>",
        "<sip:a@b >",
        "<sip:a@b>;",
        "<sip:a@b>;;x",
        "<sip:a@b>;tag",
        "<sip:a@b>;tag=",
        '<sip:a@b>;tag="x"',
        "<sip:a@b>;tag=a;tag=b",
        "sip:a;b@c",
        "sip:a@b?x=y",
        "<sip:a@b> junk",
        "x (y) <sip:a@b>",
        "<sip:a@b>;tag=a b",
        "<<sip:a@b>>",
    ],
)
def test_broken_name_addrs_are_refused(text: str) -> None:
    with pytest.raises(GrammarError):
        parse_name_addr(text)


@PATIENT
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=20))
def test_any_display_name_survives(name: str) -> None:
    address = NameAddr(name, parse_uri("sip:a@b"), (("tag", "t"),))
    assert parse_name_addr(str(address)) == address


def test_tags_are_replaced_not_added() -> None:
    assert str(parse_name_addr("<sip:a@b>;tag=1").with_tag("2")) == "<sip:a@b>;tag=2"
    with pytest.raises(GrammarError):
        parse_name_addr("<sip:a@b>").with_tag("x;y")
