"""Digest arithmetic against the worked examples of RFC 2617 and RFC 7616, and against a server of the tests."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sip_ua.sip.digest import (
    Challenge,
    Credentials,
    authorize,
    parse_challenges,
    strongest,
)
from sip_ua.sip.headers import Headers
from tests.peers.digest import answer, proves

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

MUFASA = Credentials("Mufasa", "Circle of Life")
RFC7616 = 'realm="http-auth@example.org", qop="auth, auth-int", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"'
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"


def challenge(value: str, header: str = "WWW-Authenticate") -> Challenge:
    (only,) = parse_challenges(Headers([(header, value)]))
    return only


def response_of(value: str) -> str:
    match = re.search(r'response="([0-9a-f]*)"', value)
    assert match is not None
    return match[1]


def test_the_example_of_rfc_2617_3_5() -> None:
    given_by = challenge(
        'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )

    value = authorize(given_by, Credentials("Mufasa", "Circle Of Life"), "GET", "/dir/index.html", b"", "0a4f113b", 1)

    assert value == (
        'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'uri="/dir/index.html", response="6629fae49393a05397450978507c4ef1", cnonce="0a4f113b", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41", qop=auth, nc=00000001'
    )


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616_3_9_1(algorithm: str, expected: str) -> None:
    given_by = challenge(f"Digest {RFC7616}, algorithm={algorithm}")

    assert response_of(authorize(given_by, MUFASA, "GET", "/dir/index.html", b"", CNONCE, 1)) == expected


def test_the_example_of_rfc_7616_3_9_2_as_corrected_by_erratum_4897() -> None:
    given_by = challenge(
        'Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256, '
        'nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS"'
    )
    user = Credentials("Jäsøn Doe", "Secret, or not?")

    value = authorize(given_by, user, "GET", "/doe.json", b"", "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v", 1)

    assert response_of(value) == "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"


def test_without_qop_the_response_is_that_of_rfc_2069() -> None:
    # MD5(MD5("u:r:p") ":n:" MD5("REGISTER:sip:h")), computed with md5sum
    value = authorize(challenge('Digest realm="r", nonce="n"'), Credentials("u", "p"), "REGISTER", "sip:h")

    assert value == (
        'Digest username="u", realm="r", nonce="n", uri="sip:h", response="f7949f33797a7abbe390eaa95b1ca294"'
    )


ALGORITHMS = [a + s for a in ("MD5", "SHA-256", "SHA-512-256", "SHA-512") for s in ("", "-sess")]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("qop", [(), ("auth",), ("auth-int",), ("auth-int", "auth")])
def test_what_we_write_a_server_verifies(algorithm: str, qop: tuple[str, ...]) -> None:
    ours = Challenge("r", "n", algorithm, qop, "o")
    user = Credentials('a"b\\c', "pässword")

    value = authorize(ours, user, "INVITE", "sip:h", b"body", "cn", 3)

    assert proves(value, user.username, user.password, "INVITE", b"body")
    assert not proves(value, user.username, "other", "INVITE", b"body")
    assert not proves(value, "other", user.password, "INVITE", b"body")
    assert not proves(value, user.username, user.password, "BYE", b"body")
    assert proves(value, user.username, user.password, "INVITE", b"changed") == (qop != ("auth-int",))
    given = answer(value)
    assert given.get("nc") == ("00000003" if qop else None)
    assert given.get("qop") == (None if not qop else "auth" if "auth" in qop else "auth-int")


def test_challenges_come_from_several_headers_and_several_to_a_header() -> None:
    headers = Headers(
        [
            (
                "WWW-Authenticate",
                'Basic realm="x", Digest realm="a, b", nonce="1", algorithm=MD5, Digest realm="c", nonce="2"',
            ),
            ("WWW-Authenticate", 'Digest realm="d", nonce="3", algorithm="sha-256", stale=TRUE, qop=auth'),
            ("Proxy-Authenticate", 'Digest realm="e", nonce="4", algorithm=SHA-512-256-sess, opaque=""'),
        ]
    )

    found = parse_challenges(headers)

    assert found == (
        Challenge("a, b", "1", "MD5"),
        Challenge("c", "2"),
        Challenge("d", "3", "sha-256", ("auth",), None, True),
        Challenge("e", "4", "SHA-512-256-sess", (), "", False, True),
    )
    assert strongest(found) == found[3]
    assert strongest(found[:2]) == found[0]
    assert strongest(()) is None
    assert [c.answer_header for c in found[2:]] == ["Authorization", "Proxy-Authorization"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Digest",
        'Digest realm="r"',
        'Digest nonce="n"',
        'Digest realm="r", nonce="n", algorithm=SHA-1',
        'Digest realm="r", nonce="n", qop="auth-conf"',
        'Basic realm="r", nonce="n"',
        "Negotiate abc==",
    ],
)
def test_challenges_we_cannot_answer_are_left_out(value: str) -> None:
    assert parse_challenges(Headers([("WWW-Authenticate", value)])) == ()


def test_escapes_in_realm_and_nonce_are_echoed_as_they_came() -> None:
    value = authorize(challenge('Digest realm="a\\"b", nonce="n\\\\"'), MUFASA, "INVITE", "sip:h")
    assert 'realm="a\\"b", nonce="n\\\\"' in value


def test_passwords_stay_out_of_logs() -> None:
    assert "secret" not in repr(Credentials("u", "secret"))


@PATIENT
@given(st.text('Digest realm="nonc,\\=qop ', max_size=60).map(lambda text: 'Digest realm="r",nonce="n",' + text))
def test_any_challenge_text_is_read_or_passed_over(text: str) -> None:
    for found in parse_challenges(Headers([("WWW-Authenticate", text)])):
        authorize(found, MUFASA, "INVITE", "sip:h", b"", "c", 1)
