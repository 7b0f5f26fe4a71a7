"""The registrations of `ua.register_users`: one `Registration` core each, kept alive while the service runs.

Calls never wait for them (protocol 5.3).
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from prometheus_client import Gauge

from dialbus import telemetry
from dialbus.config import RegisterUser
from sip_ua.errors import Unresolvable
from sip_ua.leg.outbound import granted
from sip_ua.sip.credential_policy import CredentialPolicy
from sip_ua.sip.grammar import GrammarError
from sip_ua.sip.registration import Registered, Registration, RegistrationFailed, Unregistered
from sip_ua.sip.uri import escape_user, parse_uri
from sip_ua.ua.transaction_user import TransactionUser
from sip_ua.ua.transport import resolve
from sip_ua.ua.user_agent import UserAgent, new_token

log = telemetry.get_logger()

REGISTERED = Gauge("dialbus_sip_registered", "Whether an address of record is registered", ["address"])
RETRY_S = 60.0
"""After a registrar's name could not be looked up."""
FAREWELL_S = 1.0
"""How long the removals may take at the end."""


class Registrar:
    """Every configured address of record that is not disabled."""

    def __init__(self, ua: UserAgent, users: Sequence[RegisterUser]) -> None:
        self.hosts: set[str] = set()
        """Addresses of the registrars, as far as they were found."""
        self._ua = ua
        self._users = [user for user in users if not user.disabled]
        self._transaction_users: list[TransactionUser] = []
        self._gone: list[asyncio.Event] = []

    async def run(self) -> None:
        """Register all, then keep them registered until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for user in self._users:
                tasks.create_task(self._begin(user), name=f"register {user.username}@{user.server}")

    async def _begin(self, user: RegisterUser) -> None:
        """Start one registration as soon as its registrar can be found."""
        name = user.credential.username if user.credential else user.username
        address = f"{name}@{user.server}"
        while True:
            try:
                registrar = parse_uri(f"sip:{user.server}")
                where = await resolve(registrar.host, registrar.port)
                break
            except (GrammarError, Unresolvable) as error:
                log.warning("registration.unresolvable", address=address, error=str(error))
                await asyncio.sleep(RETRY_S)
        self.hosts.add(where.host)
        grant = granted(user, registrar.host, where.host)
        core = Registration(
            self._ua.agent_towards(where.host),
            registrar,
            escape_user(name),
            None if grant is None else CredentialPolicy(grant, self._ua.realms),
            call_id=new_token(24),
            contact_user=escape_user(user.username),
            display_name=user.display_name or "",
        )
        gone = asyncio.Event()
        self._gone.append(gone)

        def tell(effect: Any) -> None:
            match effect:
                case Registered(contact, expires_s):
                    log.info("registration.done", address=address, contact=contact, expires_s=expires_s)
                case RegistrationFailed(status, reason):
                    realm = core.policy and core.policy.realm  # the only one that is answered
                    log.warning("registration.failed", address=address, status=status, reason=reason, realm=realm)
                case Unregistered():
                    gone.set()
            REGISTERED.labels(address).set(isinstance(effect, Registered))

        transaction_user = self._ua.add(core, core.call_id, core.local_tag, tell)
        self._transaction_users.append(transaction_user)
        transaction_user.perform(core.start(self._ua.now()))

    async def stop(self) -> None:
        """Remove the bindings (Expires 0), within a second."""
        for user in self._transaction_users:
            assert isinstance(user.core, Registration)
            user.perform(user.core.stop(self._ua.now()))
        if self._gone:
            farewells = [asyncio.create_task(gone.wait(), name="farewell") for gone in self._gone]
            await asyncio.wait(farewells, timeout=FAREWELL_S)
