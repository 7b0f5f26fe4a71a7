"""Strangers that ask for proofs of passwords: a caller, a callee, a third host that an answer leads to (SECURITY.md).

127.0.0.2 is our registrar, 127.0.0.3 the stranger, 127.0.0.4 a phone that a client calls.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from dialbus.bus import Bus
from tests.harness import ServiceProcess, next_message, run_service
from tests.peers.exchange import Call, Exchange
from tests.peers.phone import Dialog, Message, Phone, is_authorized

NONCE = "84f1c1ae6cbe5ua9c8e88dfa3ecm3459"
OWN = {"username": "7301", "password": "cl1ent"}


def asks(realm: str, nonce: str = NONCE, algorithm: str = "MD5") -> list[tuple[str, str]]:
    return [("WWW-Authenticate", f'Digest realm="{realm}", nonce="{nonce}", algorithm={algorithm}, qop="auth"')]


def proofs(*dialogs: Dialog) -> list[str]:
    """What came with a proof, whatever the method."""
    seen = [message for dialog in dialogs for message in dialog.seen]
    return [message.start for message in seen if message.all("Authorization") + message.all("Proxy-Authorization")]


@dataclass
class Place:
    """A sip-ua with an account, its registrar, and a stranger."""

    exchange: Exchange
    registrar: Phone
    stranger: Phone
    ua: ServiceProcess

    async def registers(self, realm: str) -> Message:
        """The registrar lets us prove ourselves for this realm; our proof."""
        first = await next_message(self.registrar.strays)
        self._answer(first, 401, asks(realm))
        second = await next_message(self.registrar.strays)
        self._answer(second, 200, [("Expires", "3600")])
        return second

    def _answer(self, request: Message, status: int, headers: list[tuple[str, str]]) -> None:
        copied = [line for line in request.headers if line[0] in ("Via", "From", "Call-ID", "CSeq")]
        items = (*copied, ("To", f"{request.header('To')};tag=registrar"), *headers)
        self.registrar.send(Message(f"SIP/2.0 {status} Told", items), self.exchange.address)

    async def placed(self, phone: Phone, **option: object) -> tuple[Call, Dialog]:
        call = await self.exchange.opened("invite", option={"callee": phone.uri, **option})
        return call, await phone.expect_call()


@pytest_asyncio.fixture
async def place(bus: Bus, service_env: dict[str, str], request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """`request.param` adds to the account."""
    async with Phone.open("127.0.0.2") as registrar, Phone.open("127.0.0.3") as stranger:
        user = {
            "server": registrar.at,
            "username": "4000",
            "credential": {"username": "4000", "password": "s3cr3t"},
            **getattr(request, "param", {}),
        }
        settings = {"DIALBUS_UA_REGISTER_USERS": json.dumps([user])}
        async with run_service("sip_ua", service_env | settings) as ua, Exchange.open(bus, ua) as exchange:
            yield Place(exchange, registrar, stranger, ua)


async def is_refused(call: Call, dialog: Dialog, *names: str) -> None:
    """The challenge is the callee's refusal: nothing was proved."""
    await dialog.expect_request("ACK")
    for name in ("trackStart", *names, "reject", "trackEnd"):
        await call.expect(name)
    await call.expect_end("rejected", "callee")
    assert proofs(dialog) == []


async def settled(place: Place, call: Call) -> None:
    """Our challenged BYE is done with: a request after it has been handled, in the order of its arrival."""
    await call.expect("trackEnd")
    await call.expect_end("bySystem", "system")
    probe = place.stranger.ask("OPTIONS", place.exchange.uri)
    await probe.expect_response(200)


async def test_a_caller_from_our_registrar_gets_no_proof_with_our_bye(place: Place) -> None:
    await place.registers("ours")
    for caller in (place.stranger, place.registrar):
        dialog = caller.call(place.exchange.uri, caller=f"sip:x@{place.registrar.at}")
        call = await place.exchange.accepted(dialog, sip=OWN)
        await call.send("hangup")
        bye = await dialog.expect_request("BYE")
        for realm in ("evil", "ours"):
            dialog.reply(bye, 401, headers=asks(realm))
        await settled(place, call)
        assert proofs(dialog) == []
        assert dialog.count("BYE") == 1


async def test_a_callee_behind_our_registrar_names_no_realm_of_its_own(place: Place) -> None:
    await place.registers("ours")
    call, dialog = await place.placed(place.registrar)
    dialog.reject(401, asks("evil"))
    await is_refused(call, dialog)

    call, dialog = await place.placed(place.registrar)
    dialog.reject(401, asks("ours"))
    await dialog.expect_request("ACK")
    again = await dialog.expect_request("INVITE")
    assert is_authorized(again, "4000", "s3cr3t", NONCE), "honest challenges are answered"
    dialog.reject(401, asks("ours", "another"))
    await dialog.expect_request("ACK")
    for name in ("trackStart", "reject", "trackEnd"):
        await call.expect(name)
    await call.expect_end("rejected", "callee")
    assert len(proofs(dialog)) == 1


@pytest.mark.parametrize(
    "place",
    [{"credential": {"username": "4000", "password": "s3cr3t", "realm": "ours"}}],
    indirect=True,
)
async def test_a_realm_of_the_settings_counts_before_any_was_shown(place: Place) -> None:
    call, dialog = await place.placed(place.registrar)
    dialog.reject(401, asks("evil"))
    await is_refused(call, dialog)
    assert is_authorized(await place.registers("ours"), "4000", "s3cr3t", NONCE)


@pytest.mark.parametrize("place", [{"allow_md5": False}], indirect=True)
async def test_an_account_may_refuse_md5(place: Place) -> None:
    call, dialog = await place.placed(place.registrar)
    dialog.reject(401, asks("ours"))
    await is_refused(call, dialog)
    call, dialog = await place.placed(place.registrar)
    dialog.reject(401, asks("ours", algorithm="SHA-256"))
    await dialog.expect_request("ACK")
    assert is_authorized(await dialog.expect_request("INVITE"), "4000", "s3cr3t", NONCE)
    dialog.reject(486)
    await dialog.expect_request("ACK")


async def test_a_stranger_that_is_called_gets_nothing_of_our_account(place: Place) -> None:
    await place.registers("ours")
    call, dialog = await place.placed(place.stranger, caller=f"sip:4000@{place.registrar.at}")
    dialog.reject(401, asks("ours"))
    await is_refused(call, dialog)


async def test_only_the_first_realm_of_the_host_that_the_client_named_gets_its_proof(place: Place) -> None:
    """Whatever `sip.realm` says: that is the domain of the caller, and not checked (protocol 5.2)."""
    call, dialog = await place.placed(place.stranger, sip={**OWN, "realm": "named"})
    dialog.reject(401, asks("there"))
    await dialog.expect_request("ACK")
    assert is_authorized(await dialog.expect_request("INVITE"), OWN["username"], OWN["password"], NONCE)
    dialog.reject(401, asks("evil", nonce="another"))
    await dialog.expect_request("ACK")
    for name in ("trackStart", "reject", "trackEnd"):
        await call.expect(name)
    await call.expect_end("rejected", "callee")
    assert len(proofs(dialog)) == 1, "nothing for the second realm"


@pytest.mark.parametrize("header", ["Contact", "Record-Route"])
async def test_a_third_host_that_an_answer_leads_to_gets_no_proof(place: Place, header: str) -> None:
    """Neither the account's nor the client's; not even the ACK shows the proof of the INVITE."""
    await place.registers("ours")
    async with Phone.open("127.0.0.4") as phone:
        await is_led_away(place, place.registrar, header)
        await is_led_away(place, phone, header, sip=OWN)


async def is_led_away(place: Place, named: Phone, header: str, **option: object) -> None:
    """A call to a phone that proves itself at once, and is then to do so at the stranger's."""
    call, dialog = await place.placed(named, **option)
    dialog.reject(401, asks("ours"))
    await dialog.expect_request("ACK")
    again = await dialog.expect_request("INVITE")
    assert again.header("Authorization")
    trap = place.stranger.dialog(place.exchange.uri, call_id=dialog.call_id)
    trap.peer = place.exchange.address
    trap.invite = again  # what comes belongs to this call
    dialog.invite = again
    leads_away(dialog, place.stranger, header)
    await trap.expect_request("ACK")
    for name in ("trackStart", "answer"):
        await call.expect(name)
    await call.send("hangup")
    bye = await trap.expect_request("BYE")
    trap.reply(bye, 401, headers=asks("ours", "of-the-trap"))
    await settled(place, call)
    assert proofs(trap) == []
    assert trap.count("BYE") == 1


def leads_away(dialog: Dialog, to: Phone, header: str) -> None:
    """200 whose Contact or route is another host."""
    assert dialog.invite is not None
    copied = [(name, value) for name, value in dialog.invite.headers if name in ("Via", "From", "Call-ID", "CSeq")]
    contact = to.uri if header == "Contact" else dialog.phone.uri
    items = [*copied, ("To", dialog.local), ("Contact", f"<{contact}>"), ("Content-Type", "application/sdp")]
    if header == "Record-Route":
        items.append((header, f"<sip:{to.at};lr>"))
    dialog.phone.send(Message("SIP/2.0 200 OK", tuple(items), dialog.phone.sdp().encode()), dialog.peer)
