"""How many files, and so sockets, this process may have open."""

import resource

from dialbus import telemetry

log = telemetry.get_logger()

_SPARE = 256
"""Files besides the clients' sockets: the bus, dumps, libraries."""


def make_room(sockets: int) -> None:
    """Raise our own limit to what that many sockets need, each with its event dump, as far as the system allows."""
    needed, wanted = sockets + _SPARE, 2 * sockets + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    if soft != resource.RLIM_INFINITY and soft < needed:
        log.warning("gateway.few_files", limit=soft, needed=needed)
