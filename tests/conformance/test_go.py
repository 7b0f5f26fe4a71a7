"""A Go client: binds events as the Go SDK does, and pion as the browser (P-121 to P-123, needs of section 1.3).

The SDK itself, unmodified, goes through the same in tests/interop/test_go_sdk.py where its module can be had.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ensemble import Exchange, StartPhone
from tests.interop import go_scenarios
from tests.interop.gosdk import CannotBuild, build

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built once."""
    try:
        return build(tmp_path_factory.mktemp("go"))
    except CannotBuild as why:
        pytest.skip(f"needs Go 1.24 or newer, and its modules: {why}")  # which leaves these rows unproven


@pytest.mark.row("P-121", "P-14", "G1", "G2", "G4", "G5", "G9", "G10", "G11", "G15", "G18")
async def test_p121_a_go_client_calls_out(
    go_program: Path, exchange: Exchange, phone: StartPhone, transcribe: Callable[..., str]
) -> None:
    await go_scenarios.calls_out(go_program, exchange, phone, transcribe)


@pytest.mark.row("P-121", "G3")
async def test_p121_a_go_client_is_refused(go_program: Path, exchange: Exchange) -> None:
    await go_scenarios.is_refused(go_program, exchange)


@pytest.mark.row("P-122", "G7", "G8", "G12", "G19")
async def test_p122_a_go_client_answers(
    go_program: Path, exchange: Exchange, phone: StartPhone, transcribe: Callable[..., str]
) -> None:
    await go_scenarios.answers(go_program, exchange, phone, transcribe)


@pytest.mark.row("P-122", "G4")
async def test_p122_a_go_client_rings_and_is_interrupted(go_program: Path, exchange: Exchange) -> None:
    await go_scenarios.rings_and_is_interrupted(go_program, exchange)


@pytest.mark.row("P-123", "G6")
@pytest.mark.parametrize("codec", ["pcmu", "g722"])
async def test_p123_pion_calls_by_webrtc(go_program: Path, exchange: Exchange, codec: str) -> None:
    await go_scenarios.calls_by_webrtc(go_program, exchange, codec)
