"""The Go SDK itself, unmodified (P-121 to P-123). Skipped, with the reason, where its module can't be had."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.config import CONFIG
from tests.ensemble import Exchange, StartPhone, phone, running
from tests.interop import go_scenarios
from tests.interop.gosdk import CannotBuild, build_with_sdk

__all__ = ["phone"]

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """An ensemble in which the names that the SDK's example sends stand for ours."""
    with running(tmp_path_factory.mktemp("ensemble-for-go"), config=CONFIG) as exchange:
        yield exchange


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with the SDK, built once."""
    try:
        return build_with_sdk(tmp_path_factory.mktemp("go-sdk"))
    except CannotBuild as why:
        pytest.skip(f"the Go SDK is not to be had here (DIALBUS_GO_SDK=<checkout> names one): {why}")


async def test_it_calls_out(
    go_program: Path, exchange: Exchange, phone: StartPhone, transcribe: Callable[..., str]
) -> None:
    await go_scenarios.calls_out(go_program, exchange, phone, transcribe)


async def test_it_is_refused(go_program: Path, exchange: Exchange) -> None:
    await go_scenarios.is_refused(go_program, exchange)


async def test_it_answers(
    go_program: Path, exchange: Exchange, phone: StartPhone, transcribe: Callable[..., str]
) -> None:
    await go_scenarios.answers(go_program, exchange, phone, transcribe)


async def test_it_rings_and_is_interrupted(go_program: Path, exchange: Exchange) -> None:
    await go_scenarios.rings_and_is_interrupted(go_program, exchange)


@pytest.mark.parametrize("codec", ["pcmu", "g722"])
async def test_it_calls_by_webrtc(go_program: Path, exchange: Exchange, codec: str) -> None:
    await go_scenarios.calls_by_webrtc(go_program, exchange, codec)
