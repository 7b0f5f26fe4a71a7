"""REGISTER as stories: granted, challenged, refreshed, refused, moved, removed."""

import itertools
import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sip_ua.sip.agent import Agent, SendRequest
from sip_ua.sip.credential_policy import CredentialPolicy, Grant
from sip_ua.sip.digest import Credentials
from sip_ua.sip.headers import Headers
from sip_ua.sip.message import Request, Response, response_to
from sip_ua.sip.registration import (
    Registered,
    Registration,
    RegistrationEffect,
    RegistrationFailed,
    RegistrationState,
    Unregistered,
)
from sip_ua.sip.uri import parse_uri
from tests.peers.digest import proves

SECRET = Credentials("7301", "s3cr3t")
CHALLENGE = ("WWW-Authenticate", 'Digest realm="pbx", nonce="n1", qop="auth", algorithm=MD5')
STALE = ("WWW-Authenticate", 'Digest realm="pbx", nonce="n2", qop="auth", algorithm=MD5, stale=true')
ALIVE = ("Contact", "<sip:7301@192.0.2.20:13050>;expires=200")


def registration(credentials: Credentials | None = SECRET) -> Registration:
    tokens = (f"tok{number}" for number in itertools.count(1))
    agent = Agent("192.0.2.20", 13050, new_token=lambda: next(tokens), random=lambda: 0.5)
    return Registration(agent, parse_uri("sip:pbx.example"), "7301", policy_of(credentials), call_id="r1")


def policy_of(credentials: Credentials | None) -> CredentialPolicy | None:
    return None if credentials is None else CredentialPolicy(Grant(credentials, frozenset({"pbx.example"})))


def sent(effects: Sequence[RegistrationEffect]) -> Request:
    [request] = [effect.request for effect in effects if isinstance(effect, SendRequest)]
    return request


def reply(request: Request, status: int, *headers: tuple[str, str], seen: str = "") -> Response:
    response = response_to(request, status, to_tag="reg", headers=headers)
    if not seen:
        return response
    return Response(
        status,
        response.reason,
        Headers(response.headers.with_("Via", f"{request.via}".replace(";rport", seen)).lines()),
    )


def test_register_names_the_server_and_the_user() -> None:
    machine = registration()
    effects = machine.start(0.0)
    register = sent(effects)
    assert isinstance(effects[0], SendRequest)
    assert str(effects[0].next_hop) == "sip:pbx.example"
    assert (register.method, str(register.uri), str(register.cseq)) == ("REGISTER", "sip:pbx.example", "1 REGISTER")
    assert str(register.from_.without_params()) == str(register.to) == "<sip:7301@pbx.example>"
    assert register.headers.get("Contact") == "<sip:7301@192.0.2.20:13050>"
    assert register.headers.get("Expires") == "3600"


@pytest.mark.parametrize(
    ("headers", "expires_s", "refresh_at"),
    [
        ([ALIVE], 200, 1.0 + 150.0),
        ([("Contact", "<sip:7301@192.0.2.99>;expires=10"), ALIVE], 200, 1.0 + 150.0),
        ([("Expires", "120")], 120, 1.0 + 90.0),
        ([], 50, 1.0 + 37.5),
        ([("Expires", "soon")], 50, 1.0 + 37.5),
    ],
)
def test_granted_registration_is_refreshed_at_three_quarters(
    headers: list[tuple[str, str]], expires_s: int, refresh_at: float
) -> None:
    machine = registration()
    register = sent(machine.start(0.0))
    assert machine.receive(reply(register, 200, *headers), 1.0) == [
        Registered("<sip:7301@192.0.2.20:13050>", expires_s)
    ]
    assert machine.deadline == refresh_at
    assert machine.tick(refresh_at - 0.01) == []
    again = sent(machine.tick(refresh_at))
    assert (again.call_id, again.from_tag, str(again.cseq)) == ("r1", register.from_tag, "2 REGISTER")
    assert again.via.branch != register.via.branch


def test_challenge_is_answered_once_with_a_higher_cseq() -> None:
    machine = registration()
    first = sent(machine.start(0.0))
    second = sent(machine.receive(reply(first, 401, CHALLENGE), 0.1))
    assert (str(second.cseq), second.call_id, second.from_tag) == ("2 REGISTER", first.call_id, first.from_tag)
    assert proves(second.headers.get("Authorization") or "", SECRET.username, SECRET.password, "REGISTER")
    assert machine.receive(reply(second, 401, CHALLENGE), 0.2) == [RegistrationFailed(401, "Unauthorized")]
    assert machine.deadline == 60.2


def test_stale_nonce_is_tried_once_more() -> None:
    machine = registration()
    second = sent(machine.receive(reply(sent(machine.start(0.0)), 401, CHALLENGE), 0.1))
    third = sent(machine.receive(reply(second, 401, STALE), 0.2))
    assert machine.receive(reply(third, 200, ALIVE), 0.3) == [Registered("<sip:7301@192.0.2.20:13050>", 200)]


def test_each_refresh_may_be_challenged_anew() -> None:
    machine = registration()
    second = sent(machine.receive(reply(sent(machine.start(0.0)), 401, CHALLENGE), 0.1))
    machine.receive(reply(second, 200, ALIVE), 0.2)
    refresh = sent(machine.tick(200.0))
    assert "Authorization" not in refresh.headers
    assert str(sent(machine.receive(reply(refresh, 401, CHALLENGE), 200.1)).cseq) == "4 REGISTER"


def test_nonce_that_is_used_again_is_counted() -> None:
    machine = registration()
    second = sent(machine.receive(reply(sent(machine.start(0.0)), 401, CHALLENGE), 0.1))
    machine.receive(reply(second, 200, ALIVE), 0.2)
    third = sent(machine.receive(reply(sent(machine.tick(200.0)), 401, CHALLENGE), 200.1))
    proofs = [str(request.headers.get("Authorization")) for request in (second, third)]
    assert [proof.rpartition("nc=")[2] for proof in proofs] == ["00000001", "00000002"]


def test_realm_that_is_not_the_first_one_is_a_failure() -> None:
    machine = registration()
    second = sent(machine.receive(reply(sent(machine.start(0.0)), 401, CHALLENGE), 0.1))
    machine.receive(reply(second, 200, ALIVE), 0.2)
    refresh = sent(machine.tick(200.0))
    evil = ("WWW-Authenticate", 'Digest realm="evil", nonce="n3"')
    assert machine.receive(reply(refresh, 401, evil), 200.1) == [RegistrationFailed(401, "Unauthorized")]


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_failure_is_tried_again_in_60_s(status: int) -> None:
    machine = registration(credentials=None)
    register = sent(machine.start(0.0))
    [failed] = machine.receive(reply(register, status), 5.0)
    assert isinstance(failed, RegistrationFailed)
    assert failed.status == status
    assert machine.deadline == 65.0
    assert str(sent(machine.tick(65.0)).cseq) == "2 REGISTER"


def test_silence_is_a_408_and_tried_again_in_60_s() -> None:
    machine = registration()
    register = sent(machine.start(0.0))
    assert machine.failed(register, 408, 32.0) == [RegistrationFailed(408, "Request Timeout")]
    assert machine.deadline == 92.0


def test_challenge_without_credentials_is_a_failure() -> None:
    machine = registration(credentials=None)
    [failed] = machine.receive(reply(sent(machine.start(0.0)), 401, CHALLENGE), 0.1)
    assert failed == RegistrationFailed(401, "Unauthorized")


def test_interval_too_brief_is_raised_to_what_the_registrar_wants() -> None:
    machine = registration()
    longer = sent(machine.receive(reply(sent(machine.start(0.0)), 423, ("Min-Expires", "7200")), 0.1))
    assert longer.headers.get("Expires") == "7200"
    assert machine.receive(reply(longer, 423, ("Min-Expires", "7200")), 0.2) == [
        RegistrationFailed(423, "Interval Too Brief")
    ]


def test_contact_follows_the_address_seen_in_a_challenge() -> None:
    machine = registration()
    first = sent(machine.start(0.0))
    second = sent(machine.receive(reply(first, 401, CHALLENGE, seen=";received=203.0.113.9;rport=40001"), 0.1))
    assert second.headers.get("Contact") == "<sip:7301@203.0.113.9:40001>"
    grant = reply(
        second, 200, ("Contact", "<sip:7301@203.0.113.9:40001>;expires=90"), seen=";received=203.0.113.9;rport=40001"
    )
    assert machine.receive(grant, 0.2) == [Registered("<sip:7301@203.0.113.9:40001>", 90)]


def test_address_seen_only_in_the_200_is_registered_at_once() -> None:
    machine = registration()
    first = sent(machine.start(0.0))
    effects = machine.receive(reply(first, 200, ALIVE, seen=";received=203.0.113.9;rport=40001"), 0.1)
    assert sent(effects).headers.get("Contact") == "<sip:7301@203.0.113.9:40001>"
    assert len(effects) == 1


def test_stop_removes_the_binding_with_expires_0() -> None:
    machine = registration()
    machine.receive(reply(sent(machine.start(0.0)), 200, ALIVE), 0.1)
    bye = sent(machine.stop(10.0))
    assert (bye.headers.get("Expires"), str(bye.cseq)) == ("0", "2 REGISTER")
    challenged = sent(machine.receive(reply(bye, 401, CHALLENGE), 10.1))
    assert challenged.headers.get("Expires") == "0"
    assert machine.receive(reply(challenged, 200), 10.2) == [Unregistered()]
    assert machine.finished
    assert machine.deadline is None
    assert machine.stop(11.0) == []


def test_stop_ends_after_32_s_even_when_nobody_answers() -> None:
    machine = registration()
    machine.receive(reply(sent(machine.start(0.0)), 200, ALIVE), 0.1)
    machine.stop(10.0)
    assert machine.deadline == 42.0
    assert machine.tick(42.0) == [Unregistered()]


def test_stop_after_a_failure_sends_nothing() -> None:
    machine = registration()
    machine.failed(sent(machine.start(0.0)), 503, 0.0)
    assert machine.stop(1.0) == [Unregistered()]


def test_foreign_and_provisional_responses_are_ignored() -> None:
    machine = registration()
    register = sent(machine.start(0.0))
    assert machine.receive(reply(register, 100), 0.1) == []
    machine.receive(reply(register, 200, ALIVE), 0.2)
    assert machine.receive(reply(register, 500), 0.3) == []
    assert machine.state is RegistrationState.REGISTERED


# Taken over by another process.

Step = Callable[[Registration, float], list[RegistrationEffect]]
BRIEF = ("Min-Expires", "7200")


def steps_of(seen: list[Request], data: st.DataObject) -> list[Step]:
    """Everything that may happen to a registration next."""
    silence_s = data.draw(st.sampled_from([0.0, 64.0, 4000.0]))
    steps: list[Step] = [
        lambda machine, now: machine.stop(now),
        lambda machine, now: machine.tick(now + silence_s),
        lambda machine, now: machine.failed(seen[-1], 408, now),
    ]
    status = data.draw(st.sampled_from([100, 200, 401, 423, 503]))
    extra = data.draw(st.sampled_from([(ALIVE,), (CHALLENGE,), (STALE,), (BRIEF,)]))
    where = data.draw(st.sampled_from(["", ";rport=40000;received=198.51.100.7"]))
    response = reply(data.draw(st.sampled_from(seen[-2:])), status, *extra, seen=where)
    return steps + [lambda machine, now: machine.receive(response, now)] * 9


@given(st.data())
def test_registration_that_another_process_takes_over_goes_on_as_if_nothing_had_happened(data: st.DataObject) -> None:
    first, story = registration(), list[Step]()
    seen = [sent(first.start(0.0))]
    for number in range(1, data.draw(st.integers(1, 10))):
        story.append(data.draw(st.sampled_from(steps_of(seen, data))))
        seen += [effect.request for effect in story[-1](first, float(number)) if isinstance(effect, SendRequest)]
    before, shift = data.draw(st.integers(0, len(story))), data.draw(st.sampled_from([-0.5, 0.0, 4096.0]))
    one, other = registration(), registration()
    assert one.start(0.0) == other.start(0.0)
    for number, step in enumerate(story[:before], 1):
        assert step(one, float(number)) == step(other, float(number))
    stored = json.loads(json.dumps(other.to_state(float(before))))
    taken = Registration.from_state(stored, other.agent, before + shift, policy_of(SECRET))
    assert taken.to_state(before + shift) == stored
    assert SECRET.password not in json.dumps(stored)
    for number, step in enumerate(story[before:], before + 1):
        assert step(one, float(number)) == step(taken, number + shift)
    assert (taken.finished, taken.deadline is None) == (one.finished, one.deadline is None)


def test_status_line_of_a_registration() -> None:
    machine = registration()
    register = sent(machine.start(0.0))
    assert repr(machine) == "<Registration of sip:7301@pbx.example trying, CSeq 1 waits for its answer>"
    machine.receive(reply(register, 200, ALIVE), 1.0)
    assert repr(machine) == "<Registration of sip:7301@pbx.example registered, due in 150.0 s>"
