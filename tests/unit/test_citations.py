"""What source, tests and documents cite of the client protocol stands in docs/protocol.md, as the contracts have it.

So do the files, and the names in them, that documents lead a reader to.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from dialbus.contracts.commands import COMMANDS, command_from
from dialbus.contracts.events import CLIENT_EVENT, EVENTS
from dialbus.contracts.options import CallOption
from dialbus.contracts.records import CallRecord
from gateway.rest import models as rest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text()
FOLDERS = ("services", "shared", "cli", "tests", "scripts", "examples", "docs")
SUFFIXES = (".py", ".md", ".tsv", ".toml")
HERE = Path(__file__).resolve()

# -- what is cited, and what stands there -------------------------------------------------------------

_NUMBER = r"\d+[a-z]?(?:\.\d+)*\b"
_SECTIONS = re.compile(
    rf"\b(?:protocol|(?<![A-Z\d] )sections?|protocol sections?) ({_NUMBER}(?:(?:,| and|, and| to) {_NUMBER})*)"
)
_OF_RFC = re.compile(r"\b(?:RFCs? [\d, and]+,? sections? [\d., and]+|sections? [\d.]+ of RFC \d+)")
_BARE = re.compile(r"(?:(?<![\w.§-])(2\.5\.\d)|(?<=[a-z] )\((\d{1,2}\.\d{1,2})\))(?!\.?\d)")
"""Without the word: what only a section of the protocol looks like, in the text of one that is about it."""
_ID = re.compile(r"(?<![\w-])([OGQPX]-?\d+b?)\b(?!\.)")
_G_OF_THE_ITU = re.compile(r"G7\d\d")
"""A codec's name."""


def citations(text: str) -> set[str]:
    """The section numbers ("2.5.1") and ids ("O19") of the protocol that a text cites."""
    found: set[str] = set()
    for match in _SECTIONS.finditer(_OF_RFC.sub("", text)):
        found.update(re.findall(_NUMBER, match[1]))
    found.update(match[1] or match[2] for match in _BARE.finditer(text))
    found.update(name for name in _ID.findall(text) if not _G_OF_THE_ITU.fullmatch(name))
    return found


def anchors(document: str) -> set[str]:
    """What can be cited: numbered headings and `<a id>`, ids in capitals."""
    headings = re.findall(rf"^#{{2,4}} ({_NUMBER})", document, re.MULTILINE)
    return {*headings, *(name.upper() for name in re.findall(r'<a id="([^"]+)">', document))}


def sources() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    return sorted(path for path in [*found, *ROOT.glob("*.md")] if path != HERE)


def missing(text: str) -> set[str]:
    known = anchors(TEXT)
    return {cited for cited in citations(text) if cited not in known and cited.upper() not in known}


def test_everything_cited_stands_in_the_protocol() -> None:
    found = {str(path.relative_to(ROOT)): lost for path in sources() if (lost := missing(path.read_text()))}
    assert found == {}


def test_the_search_sees_what_the_source_cites() -> None:
    cited = {each for path in sources() for each in citations(path.read_text()) if path.suffix == ".py"}
    assert {"O1", "O26", "G1", "Q-22", "P-119", "X-16", "0.2", "2.5.1", "2.5.7", "4", "5.1", "8a", "10.3"} <= cited
    assert len(cited) > 200


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("as protocol 2.5.1 and O19 have it", set()),
        ("(protocol 5.1, 5.2 and 8; G2)", set()),
        ("orders O17 to O29", {"O29"}),
        ("(protocol 2.5.9)", {"2.5.9"}),
        ("protocol sections 1.3 and 13", {"13"}),
        ("see section 77", {"77"}),
        ("joins, or replaces it (2.5.8); cut the playback (2.99)", {"2.5.8", "2.99"}),
        ("Q-99, P-200 and X-1", {"Q-99", "P-200", "X-1"}),
        ("RFC 3261 section 99.9 knows G722 and G729", set()),
    ],
)
def test_a_citation_of_what_is_not_there_is_found(text: str, lost: set[str]) -> None:
    assert missing(text) == lost


def test_every_item_of_the_conformance_table_stands_in_the_protocol() -> None:
    table = (ROOT / "tests" / "conformance" / "table.tsv").read_text()
    items = [line.partition("\t")[0] for line in table.splitlines() if line and not line.startswith("#")]
    assert len(items) > 180
    assert [item for item in items if item.upper() not in anchors(TEXT)] == []


def test_no_anchor_stands_twice() -> None:
    ids = re.findall(r'<a id="([^"]+)">', TEXT)
    assert sorted(set(ids)) == sorted(ids)


def slugs(document: str) -> set[str]:
    """The anchors that headings get: lower case, blanks to hyphens, punctuation dropped."""
    headings = re.findall(r"^#+ (.+)", document, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_of_the_documents_lead_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "services").glob("*/README.md")]:
        for target, heading in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", path.read_text()):
            if "://" in target:
                continue
            leads_to = path.parent / target if target else path
            where = f"{path.relative_to(ROOT)}: {target}#{heading}"
            assert leads_to.exists(), where
            if heading and leads_to.suffix == ".md":
                assert heading in slugs(leads_to.read_text()), where


def test_a_section_sign_has_its_standard_in_the_same_file() -> None:
    for path in sources():
        text = path.read_text()
        if path.suffix == ".py" and re.search(r"§\d", text):
            assert re.search(r"RFC \d+|ITU|G\.7\d\d|W3C", text), path.relative_to(ROOT)


# -- what the contracts have stands there ------------------------------------------------------------------


def part(beginning: str, end: str) -> str:
    """The document from a line to the next one that begins like `end`."""
    found = re.search(rf"^{re.escape(beginning)}.*?(?=^{end}|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, beginning
    return found[0]


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def names(cell: str) -> list[str]:
    return re.findall(r"`([A-Za-z]\w*)`", cell)


def fields(model: type[BaseModel]) -> dict[str, bool]:
    """A model's fields by their JSON names, and whether they are required."""
    return {
        info.serialization_alias or info.alias or name: info.is_required()
        for name, info in model.model_fields.items()
        if name not in ("command", "event", "timestamp")
    }


def test_commands_and_their_fields_are_those_of_the_contracts() -> None:
    table = {command: row[1] for row in rows(part("## 2 Commands", "### 2.1")) for command in names(row[0])}
    assert table.keys() == COMMANDS.keys()
    for command, model in COMMANDS.items():
        told = {name: f"`{name}`*" in table[command] for name in names(table[command])}
        assert told == fields(model), command


def test_events_and_their_fields_are_those_of_the_contracts() -> None:
    table = {event: row[1] for row in rows(part("## 3 Events", "### 3.1")) for event in names(row[0])}
    assert table.keys() == EVENTS.keys()
    for event, model in EVENTS.items():
        if re.fullmatch(r"3\.\d", table[event]):
            told = part(f"### {table[event]} ", "##")
            assert all(f"`{name}`" in told for name in fields(model) if name != "trackId"), event
        else:
            assert set(names(table[event])) == fields(model).keys(), event
            optional = {name for name in names(table[event]) if f"○`{name}`" in table[event]}
            always = {name for name in fields(model) if model.model_fields[_python(model, name)].default is None}
            assert optional == always, event


def _python(model: type[BaseModel], json_name: str) -> str:
    return next(
        name
        for name, info in model.model_fields.items()
        if json_name in (info.serialization_alias or info.alias or name, info.alias)
    )


def options() -> dict[str, type[BaseModel]]:
    """The objects inside CallOption, by their names."""
    found: dict[str, type[BaseModel]] = {}
    for info in CallOption.model_fields.values():
        for kind in get_args(info.annotation) or (info.annotation,):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found[kind.__name__] = kind
    return found


def test_call_option_has_the_fields_of_the_contract() -> None:
    table = part("`invite` and `accept` carry a CallOption", r"\*\*")
    assert {name for row in rows(table) for name in names(row[0])} == fields(CallOption).keys()


@pytest.mark.parametrize("name", sorted(options()))
def test_the_objects_inside_have_the_fields_of_the_contract(name: str) -> None:
    told = part(f"**{name}**", r"(?:\*\*|## )")
    assert [field for field in fields(options()[name]) if f"`{field}`" not in told] == []


def test_refer_has_the_options_of_the_contract() -> None:
    model = next(
        kind for kind in get_args(COMMANDS["refer"].model_fields["options"].annotation) if kind is not type(None)
    )
    table = part("| `options` |", r"\| \|")
    assert {name for row in rows(table) for name in names(row[0])} - {"options"} == fields(model).keys()


# -- examples -------------------------------------------------------------------------------------------------

EXAMPLES = re.findall(r"^```json ?(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, text in EXAMPLES if not kind])
def test_an_example_is_what_the_contract_reads(kind: str, text: str) -> None:
    """Every member is known under just this name: none would be ignored."""
    example = json.loads(text)
    model = command_from(example) if "command" in example else CLIENT_EVENT.validate_python(example)
    assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == example


def test_there_are_examples_of_commands_and_events() -> None:
    shown = [json.loads(text) for kind, text in EXAMPLES if not kind]
    assert sum("command" in each for each in shown) >= 15
    assert sum("event" in each for each in shown) >= 5


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, text in EXAMPLES if kind])
def test_other_examples_have_the_members_of_their_models(kind: str, text: str) -> None:
    example = json.loads(text)
    match kind:
        case "webhook":
            assert example["event"] == "invite"
            assert all(isinstance(value, str) for name, value in example.items() if name != "headers")
        case "dump":
            event: dict[str, Any] = json.loads(example["content"])
            assert example["timestamp"] == event["timestamp"]
            assert event.pop("seq") > 0
            CLIENT_EVENT.validate_python(event)
        case _:
            model: type[BaseModel] = CallRecord if kind == "CallRecord" else getattr(rest, kind)
            assert model.model_validate(example).model_dump(mode="json", by_alias=True, exclude_unset=True) == example


# -- the glossary ---------------------------------------------------------------------------------------------


def test_the_glossary_explains_each_word_once_and_only_words_in_use() -> None:
    table = (ROOT / "docs" / "glossary.md").read_text()
    terms = [
        term.strip(" `").lower()
        for line in table.splitlines()
        if line.startswith("| ") and not line.startswith("| Term")
        for term in re.sub(r"\([^)]*\)", "", line.split("|")[1]).split(",")
    ]
    assert len(terms) > 120
    assert sorted(set(terms)) == sorted(terms), "explained twice"
    code = "\n".join(path.read_text() for path in sources() if path.suffix == ".py")
    words = re.sub(r"[^a-z0-9.]+", "", code.lower())
    unused = [term for term in terms if re.sub(r"[^a-z0-9.]+", "", term.removesuffix(" name")) not in words]
    assert unused == []


# -- paths ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_a_document_names_are_there(name: str) -> None:
    named = re.findall(r"`((?:services|shared|cli|tests|docs|scripts)/[\w./*-]+)`", (ROOT / name).read_text())
    assert [path for path in named if not list(ROOT.glob(path.rstrip("/")))] == []


_PAIR = re.compile(r"`([\w./-]+\.py): ([\w.]+)`")


def defined(path: Path) -> set[str]:
    """What a module defines: `name`, `Class` and `Class.name`."""

    def names_in(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
        for node in body:
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    yield prefix + name
                case ast.ClassDef(name=name):
                    yield prefix + name
                    yield from names_in(node.body, f"{prefix}{name}.")
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    yield prefix + name

    return set(names_in(ast.parse(path.read_text()).body))


def lost_pairs(text: str) -> list[str]:
    """The `path: name` pairs of a text that lead nowhere."""
    pairs = _PAIR.findall(text)
    return [
        f"{path}: {name}" for path, name in pairs if not (ROOT / path).is_file() or name not in defined(ROOT / path)
    ]


def test_the_walks_lead_through_the_code_as_it_is() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert lost_pairs(text) == []
    walks = re.findall(r"^## The walk of (.+?)\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert [title for title, _ in walks] == ["an `invite`", "one RTP packet", "a `tts`"]
    for title, walk in walks:
        steps = {int(number) for number in re.findall(r"^(\d+)\. `[\w./-]+\.py: ", walk, re.MULTILINE)}
        assert steps == set(range(1, max(steps) + 1)), f"a step without a number, or without a file: {title}"
        assert len(steps) > 15, title
        assert walk.count(".py") == len(_PAIR.findall(walk)), f"a file without a name, or a broken pair: {title}"


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("`tests/unit/test_citations.py: defined` and `tests/unit/test_citations.py: ROOT`", []),
        ("`tests/unit/gone.py: defined`", ["tests/unit/gone.py: defined"]),
        ("`tests/unit/test_citations.py: undefined`", ["tests/unit/test_citations.py: undefined"]),
        ("`services/tts/tts/schedule.py: Schedule.take`", []),
        ("`services/tts/tts/schedule.py: take`", ["services/tts/tts/schedule.py: take"]),
        ("`services/tts/tts/schedule.py: Schedule.give`", ["services/tts/tts/schedule.py: Schedule.give"]),
    ],
)
def test_a_pair_that_leads_nowhere_is_found(text: str, lost: list[str]) -> None:
    assert lost_pairs(text) == lost


@pytest.mark.parametrize("readme", sorted((ROOT / "services").glob("*/README.md")), ids=lambda path: path.parent.name)
def test_files_that_a_service_names_are_in_it(readme: Path) -> None:
    named = re.findall(r"`((?:[\w-]+/)*(?:[\w-]+\.py|[\w-]+/))`", readme.read_text())
    assert [name for name in named if not list(readme.parent.rglob(name.rstrip("/")))] == []


def test_contributing_names_what_is_in_the_files() -> None:
    """`NAME` in `path` of the recipes, so that a renamed constant is noticed."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path, name in [
        ("shared/dialbus/contracts/commands.py", "ClientCommand"),
        ("shared/dialbus/contracts/commands.py", "COMMANDS"),
        ("shared/dialbus/contracts/events.py", "EVENTS"),
        ("shared/dialbus/contracts/events.py", "CLIENT_EVENT"),
        ("services/sip-ua/sip_ua/call/table.py", "VALID"),
        ("services/sip-ua/sip_ua/call/table.py", "_COMMANDS"),
        ("services/sip-ua/sip_ua/call/effects.py", "Ask"),
        ("shared/dialbus/contracts/media.py", "LegRequest"),
        ("shared/dialbus/contracts/media.py", "ConfigureLeg"),
        ("shared/dialbus/contracts/media.py", "RemoteMedia"),
        ("shared/dialbus/config/values.py", "CodecName"),
        ("services/media/media/audio/codec.py", "FORMATS"),
        ("services/media/media/audio/codec.py", "make_codec"),
        ("services/media/media/webrtc/sdp.py", "_FMTP"),
        ("services/sip-ua/sip_ua/leg/translate.py", "CODECS"),
        ("services/gateway/gateway/console/console.js", "KINDS"),
        ("services/asr/asr/engine.py", "Transcriber"),
        ("services/tts/tts/engine.py", "Synthesiser"),
        ("services/tts/tts/engine.py", "PROVIDER"),
    ]:
        assert f"`{path}`" in text
        assert f"`{name}`" in text
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text()), f"{name} is not in {path}"
