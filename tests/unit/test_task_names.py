"""Every task has a name, so that a dump of them, a warning of asyncio and a debugger say what hangs."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("shared/dialbus", "cli/dialbus_cli", *(f"services/{path.name}" for path in (ROOT / "services").iterdir()))


def nameless(source: str) -> list[int]:
    """Lines where a task begins without a name; `ensure_future` can give none."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            named = any(keyword.arg == "name" for keyword in node.keywords)
            if name == "ensure_future" or (name == "create_task" and not named):
                found.append(node.lineno)
    return found


def test_tasks_without_a_name_are_found() -> None:
    source = """
tasks.create_task(work(), name="work")
asyncio.create_task(work())
create_task(work())
asyncio.ensure_future(work())
"""
    assert nameless(source) == [3, 4, 5]


def test_every_task_has_a_name() -> None:
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py") if "tests" not in path.parts]
    assert len(files) > 100
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in nameless(path.read_text())]
    assert found == [], "begin tasks with create_task(…, name=…) or a TaskSet"
