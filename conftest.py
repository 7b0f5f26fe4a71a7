"""For every test: how long an example of Hypothesis takes, what the services find installed, who runs what of `-n`."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not what it proves.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ROOT = Path(__file__).parent

_ENSEMBLE = "the ensemble"
_FIRST = (
    _ENSEMBLE,
    "tests/conformance/test_waits.py",
    "tests/e2e",
    "tests/contract/asr",
    "tests/contract/tts",
    "tests",
)
"""The long ones begin first, so that none begins when all others have ended; those that compute come last."""


def _work_unit(path: str) -> str:
    """What one worker runs as a whole: the tests of a file share a service, most of those in e2e one ensemble."""
    # Two start ensembles of their own; the deaths take as long as all the others together.
    alone = path.endswith(("/test_command_line.py", "/test_secrets.py", "/test_deaths.py"))
    return _ENSEMBLE if path.startswith("tests/e2e/") and not alone else path


def _rank(unit: str) -> int:
    return next((rank for rank, prefix in enumerate(_FIRST) if unit.startswith(prefix)), len(_FIRST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of pytest: the order in which work units are given out; within one it stays as it is."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: _rank(_work_unit(item.path.relative_to(ROOT).as_posix())))


def pytest_collection_finish() -> None:
    """Of pytest: the processes that tests start find what an image has.

    Our tools bring `rich`, which other packages load where they find it: a fifth of a service's start.
    """
    others = filter(None, [os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "data" / "absent"), *others])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of pytest-xdist: hand out work units."""
    from xdist.scheduler import LoadScopeScheduling

    class WorkUnits(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _work_unit(nodeid.partition("::")[0])

    config.option.loadscopereorder = False
    return WorkUnits(config, log)
