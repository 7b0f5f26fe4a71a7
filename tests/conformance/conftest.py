"""The conformance suite: which test proves which item of table.tsv, and docs/conformance.md.

A test says with `@pytest.mark.row("P-16", "O1")` or `@pytest.mark.fault("X-07")` what it proves. An item holds when all
of its tests passed; one without a test, and one whose test was skipped, is shown as failed. `docs/conformance.md` is
written only after a run of the whole suite, and says the same after every run with the same outcome.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.config import CONFIG
from tests.conformance.parties import Background
from tests.conformance.sounds import Sounds
from tests.conformance.waits import scenarios
from tests.ensemble import Exchange, StartPhone, phone, running, synthesise, transcribe

__all__ = ["StartPhone", "phone", "synthesise", "transcribe"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCUMENT = ROOT / "docs" / "conformance.md"
_TOLD = "conformance"
"""Where a worker's output has what it tells."""
SECTIONS = {"P": "Features", "O": "Orders of events", "G": "Needs of the Go SDK", "X": "Faults that must not come back"}


@dataclass
class Item:
    """One line of the table."""

    id: str
    text: str
    out_of_scope: str
    tests: dict[str, bool | None] = field(default_factory=dict)
    """Node id → passed; None while it has not run."""

    @property
    def verdict(self) -> str:
        """pass, FAIL, or out of scope."""
        if self.out_of_scope and not self.tests:
            return f"out of scope ({self.out_of_scope})"
        if not self.tests:
            return "**FAIL: no test**"
        if None in self.tests.values():
            return "not run"
        failed = [name.rpartition("::")[2] for name, passed in self.tests.items() if not passed]
        return f"**FAIL: {', '.join(sorted(failed))}**" if failed else "pass"


def read_table() -> dict[str, Item]:
    """Every item, in order."""
    lines = [line for line in (HERE / "table.tsv").read_text().splitlines() if line and not line.startswith("#")]
    cells = [(*line.split("\t"), "")[:3] for line in lines]
    return {id: Item(id, text, reason) for id, text, reason in cells}


@pytest.fixture(scope="session")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """The ensemble of the suite."""
    with running(tmp_path_factory.mktemp("ensemble"), config=CONFIG) as exchange:
        yield exchange


@pytest.fixture(scope="session")
def background(exchange: Exchange) -> Iterator[Background]:
    """The scenarios of test_waits.py, begun all at once."""
    background = Background()
    for name, scenario in scenarios(exchange).items():
        background.start(name, scenario)
    yield background
    background.close()


@pytest.fixture(scope="session", autouse=True)
def _begin_to_wait(request: pytest.FixtureRequest) -> None:
    """Begin those scenarios before the first test when one process runs all; workers give that file out first."""
    session = request.session
    if "PYTEST_XDIST_WORKER" not in os.environ and any(test.path.name == "test_waits.py" for test in session.items):
        request.getfixturevalue("background")


@pytest.fixture(scope="session")
def sounds() -> Iterator[Sounds]:
    """A web server with sound files."""
    with Sounds.serve() as sounds:
        yield sounds


class Report:
    """A pytest plugin that keeps the table's score.

    With pytest-xdist the workers find out who proves what and send it at their end; the outcomes arrive as they happen.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.items = read_table()
        self.proves: dict[str, list[str]] = {}
        """Node id → ids of the table."""
        self.outcomes: dict[str, bool] = {}
        """Node id → passed in every phase so far."""
        self.deselected = False

    def pytest_deselected(self) -> None:
        """Of pytest: only a part is run."""
        self.deselected = True

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Of pytest: note who proves what."""
        for test in session.items:
            proven = [str(id) for name in ("row", "fault") for mark in test.iter_markers(name) for id in mark.args]
            if HERE not in test.path.parents:
                continue
            if not proven:
                raise pytest.UsageError(f"{test.nodeid} proves nothing: it has no mark row or fault")
            for id in proven:
                if id not in self.items:
                    raise pytest.UsageError(f"{test.nodeid} proves {id}, which table.tsv does not have")
            self.proves[test.nodeid] = proven

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of pytest: a phase of a test is over. Every phase must pass; a skipped test proves nothing."""
        self.outcomes[report.nodeid] = report.passed and self.outcomes.get(report.nodeid, True)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Of pytest-xdist: a worker has ended, and says what it had collected."""
        told = getattr(node, "workeroutput", {}).get(_TOLD, {})
        self.proves |= told.get("proves", {})
        self.deselected |= told.get("deselected", False)

    def count(self) -> None:
        """Enter the outcomes in the table."""
        for nodeid, ids in self.proves.items():
            for id in ids:
                self.items[id].tests[nodeid] = self.outcomes.get(nodeid)

    @property
    def is_whole(self) -> bool:
        """Whether every test of this folder has run."""
        wanted = [(ROOT / arg).resolve() for arg in self.config.args]
        whole = bool(self.proves) and self.proves.keys() <= self.outcomes.keys()
        return wanted == [HERE] and not self.deselected and whole

    def text(self) -> str:
        """The document."""
        lines = [
            "# Conformance",
            "",
            "Written by `make conformance`, never by hand: it calls the whole ensemble over real sockets, with",
            "scripted and foreign peers. An item is a pass when every test that is marked with its id passed.",
        ]
        for letter, title in SECTIONS.items():
            items = [item for item in self.items.values() if item.id.startswith(letter)]
            passed = sum(item.verdict == "pass" for item in items)
            beside = sum(item.verdict.startswith("out of scope") for item in items)
            lines += [
                "",
                f"## {title}",
                "",
                f"{passed} pass, {len(items) - passed - beside} fail, {beside} out of scope.",
                "",
            ]
            lines += ["| Id | What | Verdict | Tests |", "|---|---|---|---|"]
            lines += [f"| {item.id} | {_cell(item.text)} | {_cell(item.verdict)} | {_tests(item)} |" for item in items]
        return "\n".join(lines) + "\n"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Of pytest: after a whole run an item without a passing test fails the run."""
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output[_TOLD] = {"proves": self.proves, "deselected": self.deselected}
            return
        self.count()
        verdicts = {item.verdict for item in self.items.values()}
        if self.is_whole and any(verdict.startswith("**FAIL") for verdict in verdicts) and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Of pytest: print the table; after a whole run, write it."""
        if not self.proves:
            return
        say = terminalreporter
        say.section("conformance")
        for item in self.items.values():
            if self.is_whole or (item.verdict != "**FAIL: no test**" and item.verdict != "not run" and item.tests):
                say.write_line(f"{item.id:7}{item.text[:90]:92}{item.verdict.replace('*', '')}")
        if self.is_whole:
            DOCUMENT.write_text(self.text())
            say.write_line(f"written: {DOCUMENT.relative_to(ROOT)}")
        else:
            say.write_line("only a part of the suite ran: docs/conformance.md is left as it was")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _tests(item: Item) -> str:
    files = sorted({re.sub(r".*/", "", name.partition("::")[0]) for name in item.tests})
    return ", ".join(f"[{name.removesuffix('.py')}](../tests/conformance/{name})" for name in files)


def pytest_configure(config: pytest.Config) -> None:
    """Of pytest."""
    config.pluginmanager.register(Report(config), "conformance-report")
