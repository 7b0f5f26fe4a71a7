"""One sip-ua for the tests of a module, with the neighbours and a phone of each test's own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dialbus.bus import Bus
from tests.harness import ServiceProcess, run_service
from tests.peers.exchange import Exchange
from tests.peers.phone import Phone


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ua(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServiceProcess]:
    """A running sip-ua that logs everything it would ever log."""
    env = {
        "DIALBUS_NATS_URL": nats_url,
        "DIALBUS_HEALTH_ADDR": "127.0.0.1:0",
        "DIALBUS_UA_ADDR": "127.0.0.1",
        "DIALBUS_UA_UDP_PORT": "0",
        "DIALBUS_UA_GRACEFUL_SHUTDOWN": "false",
        "DIALBUS_LOG_LEVEL": "debug",
        "DIALBUS_RECORDER_PATH": str(tmp_path_factory.mktemp("recorders")),
    }
    async with run_service("sip_ua", env) as service:
        yield service


@pytest_asyncio.fixture
async def exchange(bus: Bus, ua: ServiceProcess) -> AsyncIterator[Exchange]:
    """The neighbours of the module's sip-ua."""
    async with Exchange.open(bus, ua) as played:
        yield played


@pytest_asyncio.fixture
async def phone() -> AsyncIterator[Phone]:
    """A phone of the test's own."""
    async with Phone.open() as one:
        yield one
