"""Dialogs: created by RFC 3261 §12.1, used by §12.2, stored as JSON."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sip_ua.sip.dialog import Dialog, dialog_of_uac, dialog_of_uas
from sip_ua.sip.headers import Headers
from sip_ua.sip.identity import dialog_id
from sip_ua.sip.message import Request, Response
from sip_ua.sip.parser import parse

VIA = "SIP/2.0/UDP 192.0.2.20:13050;branch=z9hG4bKnew;rport"

INVITE_TEXT = (
    "INVITE sip:4000@192.0.2.20 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.15:5062;branch=z9hG4bKx1\r\n{routes}"
    'Max-Forwards: 70\r\nFrom: "Ann \\"A\\"" <sip:7455@192.0.2.15>;tag=b81Fe0;x=1\r\nTo: <sip:4000@192.0.2.20>\r\n'
    "Call-ID: k7Qm2x9@192.0.2.15\r\nCSeq: 314 INVITE\r\nContact: <sip:7455@192.0.2.15:5062;ob>\r\n\r\n"
)
OK_TEXT = (
    "SIP/2.0 {status} OK\r\nVia: SIP/2.0/UDP 192.0.2.15:5062;branch=z9hG4bKx1\r\n{routes}"
    "From: <sip:7455@192.0.2.15>;tag=b81Fe0\r\nTo: <sip:4000@192.0.2.20>;tag=Zt5Rw2Lp\r\n"
    "Call-ID: k7Qm2x9@192.0.2.15\r\nCSeq: 314 INVITE\r\n{contact}\r\n"
)
TWO_PROXIES = "Record-Route: <sip:p2.example;lr>, <sip:p1.example;lr>\r\n"


def invite(routes: str = "") -> Request:
    message = parse(INVITE_TEXT.format(routes=routes).encode())
    assert isinstance(message, Request)
    return message


def answer(status: int = 200, routes: str = "", contact: str = "Contact: <sip:bob@198.51.100.4>\r\n") -> Response:
    message = parse(OK_TEXT.format(status=status, routes=routes, contact=contact).encode())
    assert isinstance(message, Response)
    return message


def in_dialog(cseq: int, contact: str | None = None) -> Request:
    headers = invite().headers.with_("CSeq", f"{cseq} INFO")
    headers = headers.without("Contact") if contact is None else headers.with_("Contact", contact)
    return Request("INFO", invite().uri, headers)


@pytest.mark.parametrize(
    ("from_tag", "to_tag", "expected"),
    [
        ("b81Fe0", "Zt5Rw2Lp", "k7Qm2x9@192.0.2.15-b81Fe0-Zt5Rw2Lp"),
        ("Zt5Rw2Lp", "b81Fe0", "k7Qm2x9@192.0.2.15-b81Fe0-Zt5Rw2Lp"),
        ("9a", "A", "k7Qm2x9@192.0.2.15-A-9a"),
        ("ab", "a", "k7Qm2x9@192.0.2.15-ab-a"),
        ("same", "same", "k7Qm2x9@192.0.2.15-same-same"),
    ],
)
def test_dialog_id_puts_the_larger_tag_first_byte_by_byte(from_tag: str, to_tag: str, expected: str) -> None:
    assert dialog_id("k7Qm2x9@192.0.2.15", from_tag, to_tag) == expected


def test_both_sides_of_a_dialog_have_the_same_id_and_mirrored_ends() -> None:
    uac = dialog_of_uac(invite(), answer())
    uas = dialog_of_uas(invite(), "Zt5Rw2Lp")
    assert uac.id == uas.id == "k7Qm2x9@192.0.2.15-b81Fe0-Zt5Rw2Lp"
    assert (uac.local_tag, uac.remote_tag) == (uas.remote_tag, uas.local_tag)
    assert (uac.local_uri, uac.remote_uri) == (uas.remote_uri, uas.local_uri)
    assert (uac.local_cseq, uac.remote_cseq) == (314, None)
    assert (uas.local_cseq, uas.remote_cseq) == (0, 314)


def test_uac_reverses_record_route_and_uas_keeps_it() -> None:
    uac = dialog_of_uac(invite(), answer(routes=TWO_PROXIES))
    uas = dialog_of_uas(invite(TWO_PROXIES), "Zt5Rw2Lp")
    assert uac.route_set == ("<sip:p1.example;lr>", "<sip:p2.example;lr>")
    assert uas.route_set == ("<sip:p2.example;lr>", "<sip:p1.example;lr>")


@pytest.mark.parametrize(("status", "state"), [(180, "early"), (183, "early"), (200, "confirmed")])
def test_status_decides_between_early_and_confirmed(status: int, state: str) -> None:
    assert dialog_of_uac(invite(), answer(status)).state == state


def test_provisional_response_without_contact_leaves_the_target_at_the_request_uri() -> None:
    assert dialog_of_uac(invite(), answer(180, contact="")).remote_target == "sip:4000@192.0.2.20"


def test_2xx_replaces_target_and_routes_of_its_early_dialog() -> None:
    early = dialog_of_uac(invite(), answer(180, contact=""))
    confirmed = early.confirmed(answer(routes=TWO_PROXIES))
    assert (confirmed.state, confirmed.remote_target) == ("confirmed", "sip:bob@198.51.100.4")
    assert confirmed.route_set == ("<sip:p1.example;lr>", "<sip:p2.example;lr>")


def test_request_goes_to_the_target_with_both_tags_and_quotes_kept() -> None:
    bye = dialog_of_uas(invite(), "Zt5Rw2Lp").request("BYE", 1, VIA)
    assert str(bye.uri) == "sip:7455@192.0.2.15:5062;ob"
    assert bye.headers.get("To") == '"Ann \\"A\\"" <sip:7455@192.0.2.15>;x=1;tag=b81Fe0'
    assert (bye.from_tag, bye.to_tag, str(bye.cseq)) == ("Zt5Rw2Lp", "b81Fe0", "1 BYE")
    assert (bye.max_forwards, str(bye.via)) == (70, VIA)


def test_loose_router_gets_a_route_and_the_target_stays_in_the_request_line() -> None:
    dialog = dialog_of_uac(invite(), answer(routes=TWO_PROXIES))
    request = dialog.request("BYE", 315, VIA)
    assert str(request.uri) == "sip:bob@198.51.100.4"
    assert request.headers.get_all("Route") == ("<sip:p1.example;lr>", "<sip:p2.example;lr>")
    assert str(dialog.next_hop) == "sip:p1.example;lr"


def test_strict_router_takes_the_request_line_and_the_target_becomes_the_last_route() -> None:
    routes = "Record-Route: <sip:p2.example;lr>, <sip:p1.example;method=INVITE?a=b>\r\n"
    dialog = dialog_of_uac(invite(), answer(routes=routes))
    request = dialog.request("BYE", 315, VIA)
    assert str(request.uri) == "sip:p1.example"
    assert request.headers.get_all("Route") == ("<sip:p2.example;lr>", "<sip:bob@198.51.100.4>")
    assert dialog.next_hop.host == "p1.example"


@pytest.mark.parametrize(("cseq", "accepted"), [(313, False), (314, True), (315, True), (9000, True)])
def test_lower_cseq_is_out_of_order_and_gaps_are_not(cseq: int, accepted: bool) -> None:
    assert dialog_of_uas(invite(), "t").accepts(in_dialog(cseq)) is accepted


def test_first_request_of_the_callee_may_have_any_cseq() -> None:
    dialog = dialog_of_uac(invite(), answer())
    assert dialog.accepts(in_dialog(0))
    assert dialog.received(in_dialog(7)).remote_cseq == 7


def test_contact_refreshes_the_target_and_its_absence_does_not() -> None:
    dialog = dialog_of_uas(invite(), "t")
    assert dialog.refreshed(in_dialog(315)).remote_target == "sip:7455@192.0.2.15:5062;ob"
    assert dialog.refreshed(in_dialog(315, "<sip:new@203.0.113.1>")).remote_target == "sip:new@203.0.113.1"


def test_state_without_a_field_is_refused() -> None:
    data = dialog_of_uas(invite(), "t").to_state()
    del data["remote_target"]
    with pytest.raises(ValueError, match="remote_target"):
        Dialog.from_state(data)


def test_state_of_a_newer_version_is_read_without_its_news() -> None:
    dialog = dialog_of_uas(invite(), "t")
    assert Dialog.from_state(dialog.to_state() | {"news": 1}) == dialog


@given(
    st.builds(
        Dialog,
        route_set=st.lists(st.text(), max_size=3).map(tuple),
        local_cseq=st.integers(0, 2**31 - 1),
        remote_cseq=st.none() | st.integers(0, 2**31 - 1),
    )
)
def test_dialog_survives_json(dialog: Dialog) -> None:
    assert Dialog.from_state(json.loads(json.dumps(dialog.to_state()))) == dialog


@given(st.text(max_size=9), st.text(max_size=9))
def test_dialog_id_does_not_depend_on_who_computes_it(one: str, other: str) -> None:
    assert dialog_id("c", one, other) == dialog_id("c", other, one)


def test_resumed_dialog_goes_on_counting() -> None:
    dialog = Dialog.from_state(dialog_of_uac(invite(), answer()).to_state()).raised()
    assert dialog.request("BYE", dialog.local_cseq, VIA).cseq.number == 315
    assert replace(dialog, local_cseq=314) == dialog_of_uac(invite(), answer())
    assert isinstance(dialog.request("BYE", 1, VIA).headers, Headers)
