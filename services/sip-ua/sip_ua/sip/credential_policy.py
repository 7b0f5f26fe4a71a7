"""Whether a challenge may be answered at all: which hop may have a proof of which password, for which realm.

A digest is enough to try passwords against, so nobody gets one but the server that the credentials are for
(SECURITY.md). Sources: RFC 3261 §22, §26.1; RFC 7616 §5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sip_ua.sip.digest import Challenge, Credentials, strongest
from sip_ua.sip.uri import Uri

MAX_PROOFS: Final = 2
"""For one request: the first challenge, and one that says that only the nonce was stale."""
MAX_REMEMBERED: Final = 64
"""Proofs in one session; after so many no challenge is answered any more."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Credentials and for whom they are."""

    credentials: Credentials
    hosts: frozenset[str]
    """The next hop, in lower case: the host that was named and the address that was found for it."""
    realm: str | None = None
    """The only one, as it stands between quotes; None: the first one that the hop shows."""
    allow_md5: bool = True
    account: str | None = None
    """Whose pin counts; None: the session's own."""


class RealmPins:
    """The first realm that each account's server showed; kept as long as the process runs."""

    def __init__(self) -> None:
        self._realms: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<realms {self._realms}>"

    def of(self, account: str) -> str | None:
        return self._realms.get(account)

    def pin(self, account: str, realm: str) -> None:
        """Remember a realm, unless there is one already."""
        self._realms.setdefault(account, realm)


class CredentialPolicy:
    """One grant in one session or registration: `choose` says which challenge to answer, and counts the proof."""

    def __init__(self, grant: Grant, pins: RealmPins | None = None) -> None:
        self.grant = grant
        self._pins = RealmPins() if pins is None else pins
        self._account = grant.account or ""
        self._counts: dict[str, int] = {}
        """Proofs by nonce, which is the nonce count (nc) of the last."""
        self._proved: set[tuple[str, str]] = set()
        """Nonce and method of each proof."""

    def __repr__(self) -> str:
        return f"<credentials of {self.grant.credentials.username} for {self.realm or 'any realm'} at {self._hosts}>"

    @property
    def credentials(self) -> Credentials:
        return self.grant.credentials

    @property
    def realm(self) -> str | None:
        """The realm that may have proofs; None before the hop showed one."""
        return self.grant.realm or self._pins.of(self._account)

    @property
    def _hosts(self) -> str:
        return ", ".join(sorted(self.grant.hosts))

    def reaches(self, hop: Uri) -> bool:
        """Whether a request that goes there may carry a proof."""
        return hop.host.lower() in self.grant.hosts

    def choose(
        self, challenges: Iterable[Challenge], method: str, hop: Uri, tries: int
    ) -> tuple[Challenge, int] | None:
        """The challenge to answer and its nonce count; None when none of them may be.

        `hop` is where the challenged request went, `tries` how often it was sent with a proof.
        """
        if not self.reaches(hop) or tries >= MAX_PROOFS or len(self._proved) >= MAX_REMEMBERED:
            return None
        chosen = strongest(one for one in challenges if self._is_ours(one, method, tries))
        if chosen is None:
            return None
        self._pins.pin(self._account, chosen.realm)
        self._proved.add((chosen.nonce, method))
        count = self._counts[chosen.nonce] = self._counts.get(chosen.nonce, 0) + 1
        return chosen, count

    def _is_ours(self, challenge: Challenge, method: str, tries: int) -> bool:
        return (
            self.realm in (None, challenge.realm)
            and (self.grant.allow_md5 or not challenge.is_md5)
            and (tries == 0 or challenge.stale)
            and (challenge.nonce, method) not in self._proved
        )

    def renew(self) -> None:
        """A registration begins anew: the server may ask again with the nonce it used last."""
        self._proved.clear()
        self._counts = dict(list(self._counts.items())[-1:])

    # The state as plain data.

    def to_state(self) -> dict[str, Any]:
        """What was proved so far, without the grant."""
        return {
            "realm": self._pins.of(self._account),
            "counts": dict(self._counts),
            "proved": sorted(list(one) for one in self._proved),
        }

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Go on where `to_state` was; None: nothing was proved."""
        if state is None:
            return
        if state["realm"] is not None:
            self._pins.pin(self._account, state["realm"])
        self._counts = dict(state["counts"])
        self._proved = {(nonce, method) for nonce, method in state["proved"]}
