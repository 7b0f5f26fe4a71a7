"""Calls that settings change: trunk rules, borrowed credentials, recording of every call (protocol 5.2, 8)."""

import json

from dialbus.bus import Bus
from dialbus.contracts.media import ConfigureLeg
from tests.harness import run_service
from tests.peers.exchange import Exchange
from tests.peers.phone import Phone, is_authorized

NONCE = "84f1c1ae6cbe5ua9c8e88dfa3ecm3459"


async def test_a_tel_number_goes_to_the_trunk_with_the_credential_of_its_registration(
    bus: Bus, service_env: dict[str, str], phone: Phone
) -> None:
    host, _, port = phone.uri.partition("@")[2].partition(":")
    rules = [
        {"rule": {"match": {"to": {"user": "^911$"}}, "rewrite": {"to": {"host": "192.0.2.1"}}}},
        {
            "rule": {
                "match": {"from": {"user": "^73"}},
                "rewrite": {
                    "from": {"user": "2000", "host": "pbx.example"},
                    "to": {"host": f"{host}:{port}"},
                    "contact": {"host": "203.0.113.9:5099"},
                },
            }
        },
    ]
    async with Phone.open() as registrar:
        user = {
            "server": registrar.uri.partition("@")[2],
            "username": "4000",
            "credential": {"username": "4000", "password": "s3cr3t"},
        }
        settings = {"DIALBUS_TRUNK_RULES": json.dumps(rules), "DIALBUS_UA_REGISTER_USERS": json.dumps([user])}
        async with run_service("sip_ua", service_env | settings) as ua, Exchange.open(bus, ua) as exchange:
            call = await exchange.opened("invite", option={"caller": "sip:7301@anywhere", "callee": "tel:+43-1-234"})
            dialog = await phone.expect_call()
            first = dialog.invite
            assert first is not None
            assert first.uri == f"sip:+43-1-234@{host}:{port}"
            assert first.header("To") == f"<{first.uri}>"
            assert first.header("From").startswith("<sip:2000@pbx.example>;tag=")
            assert first.header("Contact") == "<sip:2000@203.0.113.9:5099>"
            dialog.reject(401, [("WWW-Authenticate", f'Digest realm="there", nonce="{NONCE}"')])
            await dialog.expect_request("ACK")
            assert is_authorized(await dialog.expect_request("INVITE"), "4000", "s3cr3t", NONCE)
            dialog.reject(486)
            for name in ("trackStart", "reject", "trackEnd"):
                await call.expect(name)
            hangup = await call.expect_end("rejected", "callee")
            assert hangup["to"]["source"] == "tel:+43-1-234", "the client is told of what it asked for"

            transferred = phone.call(exchange.uri)
            talking = await exchange.accepted(transferred)
            await talking.send("refer", caller="sip:7301@anywhere", callee="tel:911911")
            second = await phone.expect_call()
            assert second.invite is not None
            assert second.invite.uri == f"sip:911911@{host}:{port}"
            assert second.invite.header("From").startswith("<sip:2000@pbx.example>;tag=")
            assert second.invite.header("Contact") == "<sip:2000@203.0.113.9:5099>"
            second.reject(486)
            await second.expect_request("ACK")
            transferred.bye()
            await transferred.expect_response(200, method="BYE")

            untouched = await exchange.opened("invite", option={"caller": "sip:8@anywhere", "callee": "tel:+43"})
            await untouched.expect("error", sender="invite")
            await untouched.expect_end("failed", "system")


async def test_a_call_in_is_recorded_and_its_bye_borrows_no_credential(
    bus: Bus, service_env: dict[str, str], phone: Phone
) -> None:
    async with Phone.open() as registrar:
        user = {"server": registrar.at, "username": "4000", "credential": {"username": "4000", "password": "s3cr3t"}}
        settings = {
            "DIALBUS_UA_REGISTER_USERS": json.dumps([user]),
            "DIALBUS_RECORDING_ENABLED": "true",
            "DIALBUS_RECORDING_AUTO_START": "true",
            "DIALBUS_RECORDING_SAMPLERATE": "8000",
        }
        async with run_service("sip_ua", service_env | settings) as ua, Exchange.open(bus, ua) as exchange:
            dialog = phone.call(exchange.uri)
            call = await exchange.accepted(dialog)
            recorder = (await exchange.media.expect(ConfigureLeg)).recorder
            assert recorder is not None
            assert recorder.samplerate == 8000
            await call.send("hangup")
            bye = await dialog.expect_request("BYE")
            dialog.reply(bye, 401, headers=[("WWW-Authenticate", f'Digest realm="there", nonce="{NONCE}"')])
            await call.expect("trackEnd")
            await call.expect_end("bySystem", "system")
        assert dialog.count("BYE") == 1, "whoever calls us is proved nothing, not even from the registrar's host"
        dialog.assert_silent()
