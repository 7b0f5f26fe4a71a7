"""What docs/ says of the contracts is what the contracts say."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    """A script of scripts/, as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_documents_are_fresh() -> None:
    assert script("contracts").stale() == [], "run `make contracts`"
    assert script("machines").stale() == [], "run `make contracts`"


def test_every_schema_is_a_schema_and_every_reference_leads_somewhere() -> None:
    for path in (ROOT / "docs" / "schemas").rglob("*.json"):
        Draft202012Validator.check_schema(json.loads(path.read_text()))
    for name in ("asyncapi.bus.json", "asyncapi.client.json"):
        document = json.loads((ROOT / "services/gateway/gateway/descriptions" / name).read_text())
        assert document["asyncapi"].startswith("3.")
        for reference in _references(document):
            assert reference.startswith("#/"), "complete in itself"
            target = document
            for part in reference[2:].split("/"):
                target = target[part]


def _references(value: object) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return here + [found for item in value.values() for found in _references(item)]
    if isinstance(value, list):
        return [found for item in value for found in _references(item)]
    return []
