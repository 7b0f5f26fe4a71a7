"""The gateway's exceptions.

GatewayError
└── UpgradeDenied        the socket is not opened; carries the HTTP status and the JSON body of the denial
    ├── BadId            the id is no session id
    ├── IdInUse          another socket has the session
    ├── WrongPath        the pending call can't be answered on this path
    ├── TooManySockets       the gateway has no room for another one
    ├── ShuttingDown     the gateway is on its way out
    └── BusAway          sessions can't be looked up now
"""


class GatewayError(Exception):
    """What can go wrong at the gateway; never raised as itself."""


class UpgradeDenied(GatewayError):
    """A WebSocket upgrade that is answered with plain HTTP instead."""

    status = 500
    reason = ""
    retry_after_s: int | None = None
    """When to try again, where that is known."""

    def __init__(self, call_id: str = "") -> None:
        super().__init__(call_id)
        self.call_id = call_id

    def __str__(self) -> str:
        return f"{self.reason}: {self.call_id}" if self.call_id else self.reason

    @property
    def body(self) -> dict[str, str]:
        """The JSON that tells the client why."""
        return {"error": self.reason, "id": self.call_id} if self.call_id else {"error": self.reason}


class BadId(UpgradeDenied):
    """An id that no session can have."""

    status = 400
    reason = "a session id has 1 to 512 characters"


class IdInUse(UpgradeDenied):
    """A live session of this id belongs to another socket (protocol section 1.2)."""

    status = 409
    reason = "session id in use"


class WrongPath(UpgradeDenied):
    """A pending inbound call is a SIP call, so its socket is `/call/sip`; the call stays pending."""

    status = 409
    reason = "a pending call is answered on /call/sip"


class TooManySockets(UpgradeDenied):
    """As many sockets as `[gateway] max_sockets` are open."""

    status = 503
    reason = "too many sockets"
    retry_after_s = 5


class ShuttingDown(UpgradeDenied):
    """No new sockets while the gateway stops."""

    status = 503
    reason = "shutting down"


class BusAway(UpgradeDenied):
    """The bus does not answer, so nobody can tell whose session it is."""

    status = 503
    reason = "bus not reachable"
