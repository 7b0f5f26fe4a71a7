"""Write docs/machines/*.md from the transition tables; `--check` only compares.

The tables are what runs, so that the diagrams can't tell anything else.
"""

import argparse
import re
import sys
from enum import Enum
from pathlib import Path
from typing import Any

from dialbus.machine import Key, Table
from dialbus_cli import phone_call
from media.turn import playback
from sip_ua.call import table as call
from sip_ua.sip import registration, transaction, uac, uas

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "machines"
TABLES: dict[str, tuple[str, transaction.Table]] = {
    "invite-client": ("INVITE client transaction (RFC 3261 §17.1.1, RFC 6026 §7.2)", transaction.INVITE_CLIENT),
    "non-invite-client": ("Non-INVITE client transaction (RFC 3261 §17.1.2)", transaction.NON_INVITE_CLIENT),
    "invite-server": ("INVITE server transaction (RFC 3261 §17.2.1, RFC 6026 §7.1)", transaction.INVITE_SERVER),
    "non-invite-server": ("Non-INVITE server transaction (RFC 3261 §17.2.2)", transaction.NON_INVITE_SERVER),
}

MACHINES: dict[str, tuple[str, str, Table[Any, Any]]] = {
    "call": ("Call, by the phase of its main leg (protocol 2 to 5)", "sip_ua/call/table.py", call.CALL),
    "transfer": ("Second leg of a transfer (protocol 6)", "sip_ua/call/table.py", call.TRANSFER),
    "session-uac": ("Session as UAC (RFC 3261 §13.2, §9.1)", "sip_ua/sip/uac.py", uac.UAC),
    "session-uas": ("Session as UAS (RFC 3261 §13.3, §9.2)", "sip_ua/sip/uas.py", uas.UAS),
    "registration": ("Registration (RFC 3261 §10)", "sip_ua/sip/registration.py", registration.TABLE),
    "softphone": ("Call of the softphone", "cli/dialbus_cli/phone_call.py", phone_call.TABLE),
    "playback": ("Playback of a leg (protocol 2.5 to 2.8)", "media/turn/playback/machine.py", playback.TABLE),
}
"""Tables of `dialbus.machine`, with the file that each is in."""


def machine_diagram(title: str, source: str, table: Table[Any, Any]) -> str:
    """A table of moves as a Mermaid state diagram: an edge for each two states, with the inputs that may lead along it.

    What leaves a state as it is, is told of the state. A move that may stay is drawn to where it may lead, only.
    """
    table = _reachable(table)
    edges: dict[tuple[Enum, Enum], list[str]] = {}
    states = list(dict.fromkeys(state for state, _ in table))
    for (state, key), move in table.items():
        for target in move.targets or (state,):
            edges.setdefault((state, target), []).append(_words(key))
    lines = [
        f"# {title}",
        "",
        f"Generated from `{source}` by `make contracts`; not edited by hand.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        *(f'    state "{state.value}" as {_id(state)}' for state in states if _id(state) != state.value),
        *(f"    {_id(one)} --> {_id(other)}: {', '.join(inputs)}" for (one, other), inputs in edges.items()),
        "```",
        "",
        "| State | Input | Handler | Leads to |",
        "| --- | --- | --- | --- |",
    ]
    for (state, key), move in table.items():
        targets = ", ".join(str(target.value) for target in move.targets) or "(stays)"
        lines.append(f"| {state.value} | {_words(key)} | `{move.handler.__qualname__}` | {targets} |")
    return "\n".join([*lines, ""])


def _reachable(table: Table[Any, Any]) -> Table[Any, Any]:
    """Without the states that two machines share parts for and this one never comes to; it begins in the first."""
    states = [state for state, _ in table][:1]
    for state in states:
        states += [to for (at, _), move in table.items() if at is state for to in move.targets if to not in states]
    return {(state, key): move for (state, key), move in table.items() if state in states}


def _id(state: Enum) -> str:
    return str(state.value).replace(" ", "_")


def _words(key: Key) -> str:
    if isinstance(key, Enum):
        return str(key.value)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key.__name__).lower()


def diagram(title: str, table: transaction.Table) -> str:
    """A transition table as a Mermaid state diagram."""
    lines = [
        f"# {title}",
        "",
        "Generated from `sip_ua/sip/transaction.py` by `make contracts`; not edited by hand.",
        "",
        "```mermaid",
        "stateDiagram-v2",
    ]
    for (state, event), (target, actions) in table.items():
        done = ", ".join(action.__name__.strip("_").replace("_", " ") for action in actions)
        label = f"{event.value} / {done}" if done else event.value
        lines.append(f"    {state.value} --> {target.value}: {label}")
    return "\n".join([*lines, "```", ""])


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    transactions = {FOLDER / f"{name}.md": diagram(title, table) for name, (title, table) in TABLES.items()}
    machines = {FOLDER / f"{name}.md": machine_diagram(*drawn) for name, drawn in MACHINES.items()}
    return transactions | machines


def stale() -> list[str]:
    """Paths (from the project's root) whose text differs or is missing, or that nothing generates any more."""
    wanted = files()
    odd = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    return sorted(str(path.relative_to(ROOT)) for path in [*odd, *(set(FOLDER.glob("*.md")) - set(wanted))])


def main() -> None:
    """Write the files, or with `--check` exit 1 when they are not fresh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        odd = stale()
        sys.stdout.write("".join(f"stale: {path}\n" for path in odd))
        raise SystemExit(1 if odd else 0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
