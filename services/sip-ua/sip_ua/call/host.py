"""What a call needs of the service that runs it."""

from typing import TYPE_CHECKING, Protocol

from dialbus.bus import Bus
from dialbus.config import Config
from dialbus.sessions import Sessions
from sip_ua.ua.user_agent import UserAgent

if TYPE_CHECKING:
    from sip_ua.call.session import CallSession


class Host(Protocol):
    """The service."""

    bus: Bus
    sessions: Sessions
    ua: UserAgent
    config: Config
    instance: str

    def over(self, call: "CallSession") -> None:
        """The call has ended; forget it."""
