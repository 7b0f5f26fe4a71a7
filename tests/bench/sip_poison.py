"""What a SIP datagram costs per octet, from its bytes to those of our answer: honest ones, and ones made to be dear.

    python tests/bench/sip_poison.py                         this checkout
    python tests/bench/sip_poison.py --against /path/to/one  this one and another

Parsed, given to the transaction layer, answered as outside of any dialog, and written, as the user agent does; without
sockets and logs. Told is the median CPU time of the rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from sip_ua.sip.agent import Agent
from sip_ua.sip.message import Request, write
from sip_ua.sip.parser import ParseError, parse
from sip_ua.sip.transaction_layer import Address, Received, TransactionLayer
from sip_ua.sip.uas import answer_outside_dialog

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Address("192.0.2.7", 5060)


def _options(vias: list[str], more: str = "") -> bytes:
    lines = [f"Via: {via}" for via in vias]
    head = ["OPTIONS sip:a@192.0.2.1 SIP/2.0", *lines, "Max-Forwards: 70", "From: <sip:b@192.0.2.7>;tag=one"]
    return "\r\n".join([*head, "To: <sip:a@192.0.2.1>", "Call-ID: poison", "CSeq: 1 OPTIONS", f"{more}\r\n"]).encode()


def _via(params: int) -> str:
    return "SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKx" + "".join(f";a{i:x}=b" for i in range(params))


DATAGRAMS = {
    "honest": _options([_via(1)]),
    "7,000 parameters in one Via": _options([_via(7000)]),
    "7,000 parameters in 70 Vias": _options([_via(100)] * 70),
    "7,000 parameters below the top Via": _options([_via(0), _via(7000)]),
    "1,000 parameters in 16 Vias": _options([_via(62)] * 16, f"Subject: {'x' * 45_000}\r\n"),
    "1,000 URI parameters": _options([_via(0)], f"Contact: <sip:a@h{''.join(f';a{i}' for i in range(1000))}>\r\n"),
    "10,000 headers": _options([_via(0)], "a:b\r\n" * 10_000),
    "56,000 commas": _options([_via(0)], f"Supported: {',' * 56_000}\r\n"),
}


def answer(data: bytes) -> bytes:
    """Our answer to a datagram; empty when there is none."""
    try:
        request = parse(data)
    except ParseError as error:
        refusal = error.response("tag")
        return b"" if refusal is None else write(refusal)
    layer, agent = TransactionLayer(lambda: "tag"), Agent("192.0.2.1", 5060, lambda: "tag", lambda: 0.5)
    for effect in layer.receive(request, SOURCE, 0.0):
        if isinstance(effect, Received) and isinstance(effect.message, Request):
            response = answer_outside_dialog(effect.message, agent)
            if response is not None:
                layer.respond(response, 0.0)
                return write(response)
    return b""


def measure(rounds: int) -> list[float]:
    """Seconds of CPU per datagram, in the order of DATAGRAMS."""
    costs: list[float] = []
    for data in DATAGRAMS.values():
        taken: list[float] = []
        for _ in range(rounds):
            begun = time.process_time()
            answer(data)
            taken.append(time.process_time() - begun)
        costs.append(statistics.median(taken))
    return costs


def run(checkout: Path, rounds: int) -> list[float]:
    """The costs in a checkout, in a process of its own."""
    paths = [checkout, checkout / "shared", *(checkout / "services").iterdir()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, __file__, "--here", str(rounds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    """Measure, here or in each checkout."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--here", type=int, metavar="ROUNDS", help=argparse.SUPPRESS)
    options.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout to compare this one with")
    options.add_argument("--rounds", type=int, default=9, help="of each datagram (default 9)")
    chosen = options.parse_args()
    if chosen.here is not None:
        print(*measure(chosen.here))
        return
    for checkout in [ROOT] if chosen.against is None else [ROOT, chosen.against.resolve()]:
        print(checkout)
        for (name, data), cost in zip(DATAGRAMS.items(), run(checkout, chosen.rounds), strict=True):
            print(f"  {cost * 1e3:8.2f} ms  {cost / len(data) * 1e9:8.0f} ns per octet  {len(data):6} octets  {name}")


if __name__ == "__main__":
    main()
