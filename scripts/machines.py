"""Write docs/machines/*.md from the transition tables of the SIP transactions; `--check` only compares.

The tables are what runs, so that the diagrams can't tell anything else.
"""

import argparse
import sys
from pathlib import Path

from sip_ua.sip import transaction

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "machines"
TABLES: dict[str, tuple[str, transaction.Table]] = {
    "invite-client": ("INVITE client transaction (RFC 3261 §17.1.1, RFC 6026 §7.2)", transaction.INVITE_CLIENT),
    "non-invite-client": ("Non-INVITE client transaction (RFC 3261 §17.1.2)", transaction.NON_INVITE_CLIENT),
    "invite-server": ("INVITE server transaction (RFC 3261 §17.2.1, RFC 6026 §7.1)", transaction.INVITE_SERVER),
    "non-invite-server": ("Non-INVITE server transaction (RFC 3261 §17.2.2)", transaction.NON_INVITE_SERVER),
}


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
    return {FOLDER / f"{name}.md": diagram(title, table) for name, (title, table) in TABLES.items()}


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
