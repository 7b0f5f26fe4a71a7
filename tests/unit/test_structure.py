"""What keeps the code readable: classes with one reason to change, short functions, reasons for what is not checked."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "shared/dialbus", "cli/dialbus_cli", "services/gateway/gateway", "services/sip-ua/sip_ua", "services/media/media",
    "services/asr/asr", "services/tts/tts", "services/webhook-dispatcher/webhook_dispatcher",
)  # fmt: skip
OTHERS = ("tests", "scripts", "examples", "conftest.py", *(str(Path(package).parent / "tests") for package in PACKAGES))
CLASS_LINES = 300
CLASS_ATTRIBUTES = 25
FUNCTION_LINES = 63
EXCEPTION = "Larger than most because"
"""A class whose docstring has a sentence that begins so says why it is one."""

REASONED = re.compile(r"# type: ignore\[[a-z-]+(, ?[a-z-]+)*\]  # \w")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Path and text of every module."""
    for folder in folders:
        place = ROOT / folder
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            yield path.relative_to(ROOT).as_posix(), path.read_text()


def lines_of(node: ast.ClassDef | Function) -> int:
    """Lines from `class` or `def` on."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def attributes_of(node: ast.ClassDef) -> set[str]:
    """Names that an instance has: fields of the class body, and what its methods assign to `self`."""
    fields = {
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and "ClassVar" not in ast.dump(item)
    }
    assigned = {
        target.attr
        for item in ast.walk(node)
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store)
        for target in [item]
        if isinstance(target.value, ast.Name) and target.value.id == "self"
    }
    return fields | assigned


def test_a_class_is_small_or_says_why_not() -> None:
    too_large = []
    for path, text in sources(*PACKAGES):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and EXCEPTION not in " ".join((ast.get_docstring(node) or "").split()):
                lines, attributes = lines_of(node), len(attributes_of(node))
                if lines > CLASS_LINES or attributes > CLASS_ATTRIBUTES:
                    too_large.append(f"{path}: {node.name} has {lines} lines and {attributes} attributes")
    assert not too_large, "\n".join(too_large)


def test_functions_are_short() -> None:
    too_long = [
        f"{path}: {node.name} has {lines_of(node)} lines"
        for path, text in sources(*PACKAGES)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, Function) and lines_of(node) > FUNCTION_LINES
    ]
    assert not too_long, "\n".join(too_long)


def test_an_ignored_type_error_has_its_reason() -> None:
    silent = [
        f"{path}:{token.start[0]}"
        for path, text in sources(*PACKAGES, *OTHERS)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and "type: ignore" in token.string and not REASONED.match(token.string)
    ]
    assert not silent, "say why, as in `# type: ignore[arg-type]  # takes None too`:\n" + "\n".join(silent)
