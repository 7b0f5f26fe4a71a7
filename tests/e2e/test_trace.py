"""`dialbus trace` tells a call from its INVITE to its BYE, of all services, while it lives and afterwards."""

import asyncio
import json
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Exchange
from tests.peers.phone import Phone, is_authorized

HUSH = f"hush-{secrets.token_hex(4)}"
NONCE = "84f1c1ae6cbe5ua9c8e88dfa3ecm3459"
CHALLENGE = ("WWW-Authenticate", f'Digest realm="there", nonce="{NONCE}"')


async def trace(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `dialbus trace`, which has to find the ensemble by itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DIALBUS_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dialbus_cli", "trace", *arguments, cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def one_call(exchange: Exchange, phone: Phone, call_id: str, following: asyncio.Event) -> None:
    """A call with a challenge, a text that is spoken, and a client that hangs up."""
    option: dict[str, Any] = {
        "callee": phone.uri,
        "caller": f"sip:7301:{HUSH}@pbx.example",
        "sip": {"username": "7301", "password": HUSH},
        "tts": {"provider": "piper", "secretKey": HUSH},
    }
    async with exchange.client(call_id) as client:
        await client.send("invite", option=option)
        dialog = await phone.expect_call()
        dialog.reject(401, [CHALLENGE])
        await dialog.expect_request("ACK")
        assert is_authorized(await dialog.expect_request("INVITE"), "7301", HUSH, NONCE)
        dialog.answer()
        await dialog.expect_request("ACK")
        await client.expect("answer")
        following.set()
        await client.send("tts", text="Hello.", playId="p1", endOfStream=True)
        await client.expect("trackEnd", playId="p1", timeout_s=20)
        await client.send("hangup")
        await dialog.expect_bye()
        await client.expect("hangup")
        assert await client.until_closed() == 1000


def in_order(lines: list[str], *patterns: str) -> None:
    """Assert that lines like these are there, one after the other, others between them allowed."""
    rest = iter(lines)
    for pattern in patterns:
        assert any(re.search(pattern, line) for line in rest), f"no {pattern!r} in its place in\n" + "\n".join(lines)


@pytest.mark.e2e
async def test_a_call_is_told_in_order_while_it_lives_and_afterwards(exchange: Exchange, tmp_path: Path) -> None:
    call_id = f"s.trace-{secrets.token_hex(4)}"
    following = asyncio.Event()
    async with Phone.open() as phone, asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(one_call(exchange, phone, call_id, following), name="call")
        await following.wait()
        followed = tasks.create_task(trace(tmp_path, call_id[:-2], "--follow"), name="follow")
        await calling
    code, live = followed.result()
    assert code == 0, live
    code, text = await trace(tmp_path, call_id, "--sip")
    assert code == 0, text

    for told in (live.splitlines(), text.splitlines()):
        assert told[0].startswith(call_id)
        in_order(
            told,
            r"gateway-1 +command +invite .*via=socket",
            r"gateway-1 +request +OpenSession .*answer=taken",
            r"sip-ua-1 +input +ClientSaid .*invite",
            r"sip-ua-1 +request +AllocateLeg .*worker.*media-1",
            r"media-1 +log +leg\.allocated",
            r"sip-ua-1 +sip +-> +INVITE sip:.*remote=127\.0\.0\.1:",
            r"sip-ua-1 +sip +<- +SIP/2\.0 401",
            r"sip-ua-1 +sip +-> +ACK ",
            r"sip-ua-1 +sip +-> +INVITE ",
            r"sip-ua-1 +sip +<- +SIP/2\.0 200",
            r"sip-ua-1 +event +answer",
            r"gateway-1 +command +tts .*text=Hello\.",
            r"sip-ua-1 +input +ClientSaid .*tts",
            r"sip-ua-1 +request +Playback",
            r"media-1 +event +trackStart .*p1",
            r"media-1 +event +trackEnd .*p1",
            r"gateway-1 +command +hangup",
            r"sip-ua-1 +sip +-> +BYE ",
            r"sip-ua-1 +event +hangup",
        )
        in_order(
            told,
            r"sip-ua-1 +request +Playback",
            r"media-1 +request +Speak .*answer=\{.*tts-1",
            r"media-1 +event +trackEnd",
        )
        assert any(re.search(r"sip +<- +SIP/2\.0 200", line) for line in told[-40:]), "the BYE's answer"
        assert not [line for line in told if HUSH in line]
    assert "Authorization: ***" in text
    assert f"Call-ID: {call_id}" in text

    code, output = await trace(tmp_path, call_id, "--json", "--without", "sip,log")
    objects = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert {one["kind"] for one in objects} == {"command", "event", "input", "request"}
    assert [one["at"] for one in objects] == sorted(one["at"] for one in objects)
    assert HUSH not in output

    (ports,) = (exchange.run_dir / "nats").glob("*.ports")  # others may run on this machine and have calls of their own
    code, output = await trace(tmp_path, "--list", "--nats", json.loads(ports.read_text())["nats"][0])
    assert code == 0
    assert re.search(rf"ended +{re.escape(call_id)}$", output, re.MULTILINE)


async def test_an_unknown_call_is_an_error(exchange: Exchange, tmp_path: Path) -> None:
    code, output = await trace(tmp_path, "s.nobody-ever")
    assert code == 1
    assert "nothing is kept of a call 's.nobody-ever'" in output
