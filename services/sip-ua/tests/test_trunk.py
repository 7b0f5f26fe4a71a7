"""Trunk rules: which one holds, and what it makes of a call (protocol 8)."""

from typing import Any

import pytest

from dialbus.config import TrunkRewrite, TrunkRule, UriParts
from sip_ua.errors import BadAddress
from sip_ua.leg import trunk
from sip_ua.sip.uri import parse_name_addr, parse_uri


def rule(match: dict[str, Any], rewrite: dict[str, Any]) -> TrunkRule:
    return TrunkRule.model_validate({"rule": {"match": match, "rewrite": rewrite}})


INTERNAL = rule({"to": {"host": r"^172\.25\."}}, {"contact": {"host": "172.25.225.2"}})
SEVENS = rule({"from": {"user": r"^7\d+$", "host": "example"}, "to": {"user": "^00"}}, {"to": {"host": "intl.example"}})
EVERYTHING = rule({}, {"from": {"user": "2000"}})


@pytest.mark.parametrize(
    ("caller", "callee", "first"),
    [
        ("sip:7301@a.example", "sip:1@172.25.0.9", INTERNAL),
        ("sip:7301@a.example", "sip:0043@172.25.0.9", INTERNAL),
        ("sip:7301@a.example", "sip:0043@sbc", SEVENS),
        ("sip:7301@a.example", "sip:43@sbc", EVERYTHING),
        ("sip:7301@192.0.2.1", "sip:0043@sbc", EVERYTHING),
        ("sip:x7301@a.example", "tel:0043", EVERYTHING),
        ("sip:7301@a.example", "tel:0043", SEVENS),
        ("sip:%37301@a.example", "sip:0043@sbc", SEVENS),
        (None, "sip:0043@sbc", EVERYTHING),
        (None, "sip:1@172.25.0.9", INTERNAL),
        (f"sip:7{'3' * 300}@a.example", "sip:0043@sbc", EVERYTHING),
    ],
)
def test_the_first_rule_whose_patterns_all_hold_wins(caller: str | None, callee: str, first: TrunkRule) -> None:
    rules = [INTERNAL, SEVENS, EVERYTHING]
    found = trunk.matching(rules, None if caller is None else parse_uri(caller), parse_uri(callee))
    assert found == first.rule.rewrite


def test_without_a_rule_that_holds_nothing_is_rewritten() -> None:
    assert trunk.matching([INTERNAL], None, parse_uri("sip:1@h")) == TrunkRewrite()
    assert trunk.matching([], None, parse_uri("sip:1@h")) == TrunkRewrite()


@pytest.mark.parametrize(
    ("address", "user", "host", "becomes"),
    [
        ("sip:1@h", None, None, "<sip:1@h>"),
        ("<sip:1@h:5062;transport=udp>", None, "g", "<sip:1@g:5062;transport=udp>"),
        ("sip:1@h:5062", None, "g:5070", "<sip:1@g:5070>"),
        ("sip:1@h", None, "[2001:db8::1]:5070", "<sip:1@[2001:db8::1]:5070>"),
        ('"A" <sip:1@h>;x=y', "2 2", None, '"A" <sip:2%202@h>;x=y'),
        ("<sip:h>", "9", None, "<sip:9@h>"),
        ("<tel:+4312345;phone-context=x>", None, "g:5070", "<sip:+4312345@g:5070>"),
        ("<tel:+4312345>", "+49", None, "<tel:+49>"),
    ],
)
def test_parts_are_replaced_and_the_rest_is_kept(
    address: str, user: str | None, host: str | None, becomes: str
) -> None:
    assert str(trunk.rewritten(parse_name_addr(address), UriParts(user=user, host=host))) == becomes


def test_parts_that_make_no_address_are_told() -> None:
    with pytest.raises(BadAddress, match="trunk rule"):
        trunk.rewritten(parse_name_addr("<tel:+43>"), UriParts(user="x"))
