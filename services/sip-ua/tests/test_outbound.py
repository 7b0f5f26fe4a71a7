"""Whom an outbound leg calls and as whom (protocol 5.1, 5.2, Q-24)."""

from typing import Any

import pytest

from dialbus.config import Config
from dialbus.contracts.options import SipOption
from sip_ua.errors import BadAddress
from sip_ua.leg import outbound
from sip_ua.sip.agent import Agent
from sip_ua.sip.credential_policy import Grant
from sip_ua.sip.digest import Credentials

AGENT = Agent("192.0.2.7", 13050, new_token=lambda: "token", random=lambda: 0.5)


def planned(
    callee: str | None = "sip:1@h", caller: str | None = None, sip: dict[str, Any] | None = None, **config: Any
) -> outbound.Plan:
    option = None if sip is None else SipOption.model_validate(sip)
    return outbound.plan(caller, callee, option, Config.model_validate(config))


def users(*entries: tuple[str, str, bool]) -> dict[str, Any]:
    return {
        "register_users": [
            {"server": server, "username": "u", "disabled": disabled, "credential": {"username": name, "password": "p"}}
            for server, name, disabled in entries
        ]
    }


@pytest.mark.parametrize(
    ("caller", "sip", "from_", "contact"),
    [
        (None, None, "<sip:192.0.2.7:13050>", "<sip:192.0.2.7:13050>"),
        (None, {}, "<sip:192.0.2.7:13050>", "<sip:192.0.2.7:13050>"),
        (None, {"username": "7301"}, "<sip:7301@192.0.2.7>", "<sip:7301@192.0.2.7:13050>"),
        (None, {"username": "7301", "realm": "r.example"}, "<sip:7301@r.example>", "<sip:7301@192.0.2.7:13050>"),
        (None, {"username": "7301@d.example"}, "<sip:7301@d.example>", "<sip:7301@192.0.2.7:13050>"),
        ("7301@a", {"username": "x"}, "<sip:7301@a>", "<sip:7301@192.0.2.7:13050>"),
        ("a.example", None, "<sip:a.example>", "<sip:192.0.2.7:13050>"),
        ('"Anna" <SIP:7301@a:5070>', None, '"Anna" <sip:7301@a:5070>', "<sip:7301@192.0.2.7:13050>"),
        ("sip:7301@a", {"contact": "sip:me@203.0.113.1:9"}, "<sip:7301@a>", "<sip:me@203.0.113.1:9>"),
        ("sip:7301@a", {"contact": "me@203.0.113.1"}, "<sip:7301@a>", "<sip:me@203.0.113.1>"),
    ],
)
def test_who_calls_and_where_we_are_reached(
    caller: str | None, sip: dict[str, Any] | None, from_: str, contact: str
) -> None:
    plan = planned(caller=caller, sip=sip)
    assert (str(plan.caller(AGENT)), str(plan.contact(AGENT))) == (from_, contact)


@pytest.mark.parametrize(
    ("callee", "becomes"),
    [
        ("sip:7455@10.20.0.9", "<sip:7455@10.20.0.9>"),
        ("7455@10.20.0.9:5070", "<sip:7455@10.20.0.9:5070>"),
        (" Sip:h ", "<sip:h>"),
        ("[2001:db8::1]", "<sip:[2001:db8::1]>"),
        ("<sip:1@h;x=y>", "<sip:1@h;x=y>"),
    ],
)
def test_a_callee_without_a_scheme_gets_one(callee: str, becomes: str) -> None:
    assert str(planned(callee).callee) == becomes


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"callee": None}, "callee"),
        ({"callee": "sip:1@"}, "callee"),
        ({"callee": "sip:"}, "callee"),
        ({"callee": "http://h"}, "callee"),
        ({"callee": "tel:+431234"}, "callee: not a SIP URI with a host"),
        ({"callee": "sips:1@h"}, "only SIP over UDP"),
        ({"callee": "sip:1@h;transport=tcp"}, "only SIP over UDP"),
        ({"caller": "sip:x@"}, "caller"),
        ({"sip": {"contact": "tel:+43"}}, "sip.contact"),
        ({"sip": {"contact": "<sip:a"}}, "sip.contact"),
    ],
)
def test_an_address_that_is_none_is_told_by_its_name(options: dict[str, Any], told: str) -> None:
    with pytest.raises(BadAddress, match=told):
        planned(**options)


def test_a_caller_that_is_no_sip_address_is_told() -> None:
    with pytest.raises(BadAddress, match="caller"):
        planned(caller="tel:+431234").caller(AGENT)


def test_a_trunk_rule_rewrites_all_three_addresses_and_makes_tel_callable() -> None:
    rules = [
        {"rule": {"match": {"to": {"user": r"^\+43"}}, "rewrite": {"to": {"host": "sbc.example:5070"}}}},
        {
            "rule": {
                "match": {"from": {"host": "^a$"}},
                "rewrite": {"from": {"user": "2000"}, "to": {"host": "b"}, "contact": {"host": "203.0.113.9"}},
            }
        },
    ]
    assert str(planned("tel:+43-1-234", trunk_rules=rules).callee) == "<sip:+43-1-234@sbc.example:5070>"
    plan = planned("sip:1@h:5062", "sip:7301@a", trunk_rules=rules)
    assert str(plan.callee) == "<sip:1@b:5062>"
    assert str(plan.caller(AGENT)) == "<sip:2000@a>"
    assert str(plan.contact(AGENT)) == "<sip:2000@203.0.113.9:13050>"
    with pytest.raises(BadAddress):
        planned("tel:+49", trunk_rules=rules)


def test_the_credential_of_a_registration_is_borrowed_at_its_host_only() -> None:
    ua = users(("off.example", "off", True), ("pbx.example:5070", "4000", False), ("pbx.example", "4001", False))
    assert planned("sip:1@PBX.example", ua=ua).credentials == Credentials("4000", "p")
    assert planned("sip:1@pbx.example:5080", ua=ua).credentials == Credentials("4000", "p")
    assert planned("sip:1@other.example", ua=ua).credentials is None
    assert planned("sip:1@off.example", ua=ua).credentials is None
    own = planned("sip:1@pbx.example", sip={"username": "7301", "password": "q"}, ua=ua)
    assert own.credentials == Credentials("7301", "q")
    rules = [{"rule": {"rewrite": {"to": {"host": "pbx.example"}}}}]
    assert planned("sip:1@other.example", ua=ua, trunk_rules=rules).credentials == Credentials("4000", "p")


def test_credentials_are_for_the_host_that_was_called_and_an_account_for_its_realm() -> None:
    account = {
        "server": "pbx.example",
        "username": "u",
        "credential": {"username": "4000", "password": "p", "realm": 'say "pbx"'},
        "allow_md5": False,
    }
    there = frozenset({"pbx.example", "192.0.2.1"})
    borrowed = planned("sip:1@PBX.example", ua={"register_users": [account]})
    assert borrowed.grant("192.0.2.1") == Grant(
        Credentials("4000", "p"), there, r"say \"pbx\"", allow_md5=False, account="4000@pbx.example"
    )
    own = planned("sip:1@pbx.example", sip={"username": "7301", "password": "q", "realm": "r"})
    assert own.grant("192.0.2.1") == Grant(Credentials("7301", "q"), there)
    assert planned("sip:1@pbx.example").grant("192.0.2.1") is None
