"""`ua.register_users` against a registrar that the test plays: challenge, refresh, removal (protocol 5.3)."""

import asyncio
import json
from collections.abc import Sequence

from tests.harness import ServiceProcess, next_message, run_service
from tests.peers.phone import Message, Phone, is_authorized

NONCE = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
CHALLENGE = f'Digest realm="example", nonce="{NONCE}", algorithm=MD5, qop="auth"'


def answer(phone: Phone, ua: ServiceProcess, request: Message, status: int, *headers: tuple[str, str]) -> None:
    """Answer a REGISTER as the registrar."""
    copied = [line for line in request.headers if line[0] in ("Via", "From", "Call-ID", "CSeq")]
    items: Sequence[tuple[str, str]] = [*copied, ("To", f"{request.header('To')};tag=reg1"), *headers]
    host, _, port = str(ua.facts["sip"]).removesuffix("/udp").rpartition(":")
    phone.send(Message(f"SIP/2.0 {status} Told", tuple(items), b""), (host, int(port)))


async def test_a_user_is_registered_with_its_credential_and_removed_at_the_end(
    phone: Phone, service_env: dict[str, str]
) -> None:
    server = f"{phone.host}:{phone.port}"
    users = [
        {
            "server": server,
            "username": "x",
            "display_name": "Front desk",
            "credential": {"username": "alice", "password": "hunter2"},
        },
        {"server": server, "username": "bob", "disabled": True},
    ]
    env = {**service_env, "DIALBUS_UA_REGISTER_USERS": json.dumps(users), "DIALBUS_LOG_LEVEL": "info"}
    async with run_service("sip_ua", env) as service:
        first = await next_message(phone.strays)
        assert (first.method, first.uri) == ("REGISTER", f"sip:{server}")
        assert first.header("To") == f'"Front desk" <sip:alice@{server}>'
        assert first.header("Contact").startswith(f"<sip:x@{phone.host}:")
        answer(phone, service, first, 401, ("WWW-Authenticate", CHALLENGE))

        second = await next_message(phone.strays)
        assert is_authorized(second, "alice", "hunter2", NONCE)
        assert second.cseq == first.cseq + 1
        assert second.header("Call-ID") == first.header("Call-ID")
        # Granted for 2 s, so refreshed after 1.5 s.
        answer(phone, service, second, 200, ("Contact", second.header("Contact")), ("Expires", "2"))

        third = await next_message(phone.strays)
        assert (third.method, third.cseq) == ("REGISTER", second.cseq + 1)
        answer(phone, service, third, 200, ("Contact", third.header("Contact")), ("Expires", "3600"))

        stopped = asyncio.ensure_future(service.stop())
        last = await next_message(phone.strays)
        assert (last.method, last.header("Expires")) == ("REGISTER", "0")
        answer(phone, service, last, 200)
        await stopped
        assert "hunter2" not in service.log
        assert "bob" not in service.log
