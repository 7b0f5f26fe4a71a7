"""Which challenge may be answered, as tables: the hop, the realm, the hash, the nonce (protocol 5.2)."""

import json
from collections.abc import Sequence

import pytest

from sip_ua.sip.credential_policy import MAX_REMEMBERED, CredentialPolicy, Grant, RealmPins
from sip_ua.sip.digest import Challenge, Credentials
from sip_ua.sip.uri import parse_uri

SECRET = Credentials("7301", "s3cr3t")
HOP = parse_uri("sip:pbx.example")
HOSTS = frozenset({"pbx.example", "192.0.2.1"})
MD5 = Challenge("pbx", "n1")
SHA = Challenge("pbx", "n1", "SHA-256")
OTHER = Challenge("evil", "n1", "SHA-256")
STALE = Challenge("pbx", "n2", stale=True)


def policy(realm: str | None = None, *, allow_md5: bool = True) -> CredentialPolicy:
    return CredentialPolicy(Grant(SECRET, HOSTS, realm, allow_md5))


@pytest.mark.parametrize(
    ("hop", "may"),
    [
        ("sip:pbx.example", True),
        ("sip:bob@PBX.example:5070", True),
        ("sip:bob@192.0.2.1", True),
        ("sip:bob@192.0.2.2", False),
        ("sip:pbx.example@192.0.2.2", False),
        ("sip:bob@sub.pbx.example", False),
        ("sip:bob@pbx.example.evil", False),
    ],
)
def test_only_the_hop_that_was_named_gets_a_proof(hop: str, may: bool) -> None:
    assert policy().reaches(parse_uri(hop)) is may
    assert (policy().choose([SHA], "BYE", parse_uri(hop), 0) is not None) is may


@pytest.mark.parametrize(
    ("realm", "challenges", "chosen"),
    [
        (None, [MD5], MD5),
        (None, [MD5, SHA], SHA),
        (None, [OTHER], OTHER),
        ("pbx", [MD5], MD5),
        ("pbx", [OTHER], None),
        ("pbx", [OTHER, MD5], MD5),
        ("PBX", [MD5], None),
        (None, [], None),
    ],
)
def test_only_the_realm_that_was_told_counts(
    realm: str | None, challenges: Sequence[Challenge], chosen: Challenge | None
) -> None:
    found = policy(realm).choose(challenges, "INVITE", HOP, 0)
    assert found == (None if chosen is None else (chosen, 1))


@pytest.mark.parametrize(
    ("algorithm", "may"), [(None, False), ("MD5", False), ("md5-sess", False), ("SHA-256", True), ("SHA-512-256", True)]
)
def test_md5_can_be_refused(algorithm: str | None, may: bool) -> None:
    challenge = Challenge("pbx", "n1", algorithm)
    assert (policy(allow_md5=False).choose([challenge], "INVITE", HOP, 0) is not None) is may
    assert policy().choose([challenge], "INVITE", HOP, 0) is not None


def test_the_first_realm_of_an_account_is_pinned_for_all_its_calls() -> None:
    pins = RealmPins()
    grant = Grant(SECRET, HOSTS, account="7301@pbx.example")
    first, second = CredentialPolicy(grant, pins), CredentialPolicy(grant, pins)
    assert first.choose([MD5], "REGISTER", HOP, 0) == (MD5, 1)
    assert second.choose([OTHER], "INVITE", HOP, 0) is None
    assert second.choose([MD5], "INVITE", HOP, 0) == (MD5, 1)
    other = CredentialPolicy(Grant(SECRET, HOSTS, account="8@pbx.example"), pins)
    assert other.choose([OTHER], "INVITE", HOP, 0) == (OTHER, 1)
    assert repr(second) == "<credentials of 7301 for pbx at 192.0.2.1, pbx.example>"


def test_a_challenge_that_is_not_answered_pins_nothing() -> None:
    one = policy(allow_md5=False)
    assert one.choose([Challenge("evil", "n1")], "INVITE", HOP, 0) is None
    assert one.choose([OTHER], "INVITE", parse_uri("sip:evil.example"), 0) is None
    assert one.realm is None


def test_one_proof_for_each_nonce_and_method_counted() -> None:
    one = policy()
    assert one.choose([MD5], "INVITE", HOP, 0) == (MD5, 1)
    assert one.choose([MD5], "INVITE", HOP, 0) is None
    assert one.choose([MD5], "BYE", HOP, 0) == (MD5, 2)
    heir = policy()
    heir.load(json.loads(json.dumps(one.to_state())))
    assert heir.to_state() == one.to_state()
    assert heir.choose([MD5], "BYE", HOP, 0) is None
    assert heir.choose([MD5], "MESSAGE", HOP, 0) == (MD5, 3)
    heir.renew()
    assert heir.choose([MD5], "BYE", HOP, 0) == (MD5, 4)


@pytest.mark.parametrize(
    ("challenge", "tries", "may"),
    [
        (STALE, 0, True),
        (STALE, 1, True),
        (STALE, 2, False),
        (Challenge("pbx", "n2"), 1, False),
        (Challenge("pbx", "n1", stale=True), 1, False),
    ],
)
def test_a_request_is_proved_once_and_once_more_when_its_nonce_was_stale(
    challenge: Challenge, tries: int, may: bool
) -> None:
    one = policy()
    assert one.choose([MD5], "INVITE", HOP, 0)
    assert (one.choose([challenge], "INVITE", HOP, tries) is not None) is may


def test_a_session_gives_a_bounded_number_of_proofs() -> None:
    one = policy()
    given = [one.choose([Challenge("pbx", f"n{number}")], "MESSAGE", HOP, 0) for number in range(MAX_REMEMBERED + 9)]
    assert sum(proof is not None for proof in given) == MAX_REMEMBERED
    assert "s3cr3t" not in json.dumps(one.to_state()) + repr(one)
