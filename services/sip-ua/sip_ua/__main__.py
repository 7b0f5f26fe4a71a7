"""The sip-ua service: SIP signalling, and the call machine of every call, whatever its type."""

import asyncio

from dialbus.config import Loaded
from dialbus.lifecycle import run, service
from dialbus.sessions import Sessions
from sip_ua.service import SipService


async def serve(loaded: Loaded) -> None:
    """Serve calls until cancelled; then hang up, and leave when everybody has been told."""
    async with service("sip-ua", loaded) as me:
        calls = SipService(me, await Sessions.open(me.bus))
        try:
            me.addresses["sip"] = f"{await calls.start()}/udp"
            me.capacity = lambda: (None, calls.live)
            me.facts = calls.facts
            me.health.facts(lambda: {"calls": calls.live, "transactions": calls.ua.transactions})
            await me.announce()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(calls.watch_neighbours(), name="watch")
                tasks.create_task(calls.registrar.run(), name="registrar")
        finally:
            await asyncio.shield(calls.stop())


def main() -> None:
    """Run until SIGTERM."""
    run("sip-ua", serve)


if __name__ == "__main__":
    main()
