"""The gateway service: client sockets on one side, the bus on the other."""

from dialbus.config import HostPort, Loaded
from dialbus.health import served
from dialbus.lifecycle import run, service
from dialbus.sessions import Sessions
from gateway.access import Access
from gateway.app import create_app
from gateway.files import make_room
from gateway.origin import Doors
from gateway.proxies import Proxies
from gateway.rest.api import Rest
from gateway.rest.service_routes import ServiceRoutes
from gateway.socket.control_frames import ControlFrames
from gateway.socket.parsing import MAX_TEXT_BYTES
from gateway.socket.registry import CallSockets
from gateway.workers import Workers


async def serve(loaded: Loaded) -> None:
    """Serve clients until cancelled; then end the calls of the sockets still open."""
    async with service("gateway", loaded, serve_health=False) as me:
        config = me.config
        sessions = await Sessions.open(me.bus)
        workers = Workers(me.bus, config.health.expects)
        await workers.listen()
        make_room(config.gateway.max_sockets)
        sockets = CallSockets(
            me.bus,
            sessions,
            workers,
            instance=me.instance,
            recorder_path=config.recorder_path,
            max_sockets=config.gateway.max_sockets,
        )
        rest = Rest(me, sessions, workers)
        me.health.facts(lambda: {"sockets": sockets.count, **workers.facts()})
        me.capacity = lambda: (None, sockets.count)
        health = ServiceRoutes(me.health, workers, config.ice_servers)
        doors = Doors(
            config.http_addr.host,
            external_ip=config.external_ip,
            hosts=config.gateway.hosts,
            origins=config.gateway.origins,
        )
        proxies = Proxies(config.gateway.trusted_proxies)
        app = create_app(Access(config.http_token), doors, proxies, sockets, rest, health)
        options = {
            "proxy_headers": False,  # whose count is said by [gateway] trusted_proxies
            "ws": ControlFrames,
            "ws_ping_interval": None,
            "ws_max_size": MAX_TEXT_BYTES,
            "ws_per_message_deflate": False,  # audio gains nothing by it, and it costs more than all else here
        }
        async with served(app, config.http_addr, "http_addr", **options) as bound:
            address = _reachable(bound)
            me.addresses |= {
                "http": f"http://{address}", "ws": f"ws://{address}", "health": f"http://{address}/health",
            }  # fmt: skip
            await me.announce()
            try:
                await sockets.watch()
            finally:
                rest.stop()
                await sockets.close_all()
                await rest.close()


def _reachable(bound: HostPort) -> HostPort:
    """An address that a client on this machine can connect to."""
    return HostPort({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound.host, bound.host), bound.port)


def main() -> None:
    """Entry point."""
    run("gateway", serve)


if __name__ == "__main__":
    main()
