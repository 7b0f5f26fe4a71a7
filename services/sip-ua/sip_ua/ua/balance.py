"""What a host has sent us against what we answered it: who asks in its name may be somebody else."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

ADVANCE_BYTES: Final = 32_768
"""So much more than it sent may go to a host at once: the OPTIONS of a hundred trunks behind one address."""
PER_S: Final = 2048
"""And so many octets a second from then on."""
MAX_HOSTS: Final = 4096


@dataclass(slots=True)
class _Account:
    octets: float
    at: float


class Balance:
    """How many octets each host may still get in answers that belong to no call. Hosts are forgotten, oldest first."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def received(self, host: str, octets: int, now: float) -> None:
        """So many came from there."""
        account = self._account(host, now)
        account.octets = min(account.octets + octets, ADVANCE_BYTES)

    def may_send(self, host: str, octets: int, now: float) -> bool:
        """Whether so many may go there; they are counted then."""
        account = self._account(host, now)
        if octets > account.octets:
            return False
        account.octets -= octets
        return True

    def _account(self, host: str, now: float) -> _Account:
        account = self._accounts.get(host)
        if account is None:
            account = self._accounts[host] = _Account(ADVANCE_BYTES, now)
            if len(self._accounts) > MAX_HOSTS:
                self._accounts.popitem(last=False)
        self._accounts.move_to_end(host)
        account.octets = min(account.octets + (now - account.at) * PER_S, ADVANCE_BYTES)
        account.at = now
        return account
