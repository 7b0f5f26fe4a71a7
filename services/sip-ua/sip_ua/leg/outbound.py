"""Whom an outbound leg calls and as whom: addresses, trunk rules, credentials, Contact (protocol 5.1, 5.2 and 8).

Pure functions. `plan` needs no address of ours; what depends on the way to the callee is asked of the plan once that
is known. Every leg that a client wants, `invite` and `refer` alike, begins here.
"""

from dataclasses import dataclass

from dialbus.config import Config, RegisterUser, TrunkRewrite
from dialbus.contracts.options import SipOption
from sip_ua.leg import translate, trunk
from sip_ua.sip.agent import Agent
from sip_ua.sip.credential_policy import Grant
from sip_ua.sip.digest import Credentials
from sip_ua.sip.grammar import GrammarError, quote
from sip_ua.sip.uri import NameAddr, parse_uri


@dataclass(frozen=True, slots=True)
class Plan:
    """A leg that can be placed: its callee has a host, and nothing in it is bad."""

    callee: NameAddr
    credentials: Credentials | None
    """The client's, else those of the registration at the callee's host."""
    _account: RegisterUser | None
    """Whose credentials they are, unless they are the client's."""
    _caller: NameAddr | None
    _contact: NameAddr | None
    _sip: SipOption | None
    _rewrite: TrunkRewrite

    def caller(self, agent: Agent) -> NameAddr:
        """Who calls, told to a callee who sees us as `agent`. Raises BadAddress."""
        address = self._caller or translate.default_caller(self._sip, agent.host, agent.port)
        return translate.usable(trunk.rewritten(address, self._rewrite.from_), "caller")

    def contact(self, agent: Agent) -> NameAddr:
        """Where the callee reaches us. Raises BadAddress."""
        address = self._contact or agent.contact(self.caller(agent).uri.user)
        return trunk.rewritten(address, self._rewrite.contact)

    def grant(self, address: str) -> Grant | None:
        """For whom the credentials are: the callee's host and the address that was found for it."""
        hosts = (self.callee.uri.host, address)
        if self._account is not None:
            return granted(self._account, *hosts)
        if self.credentials is None:
            return None
        return Grant(self.credentials, _lower(hosts))  # `sip.realm` is the caller's domain, and not checked (5.2)


def plan(caller: str | None, callee: str | None, sip: SipOption | None, config: Config) -> Plan:
    """What a client's `caller`, `callee` and `sip` come to, after the trunk rules. Raises BadAddress."""
    from_ = translate.parse_address(caller, "caller") if caller else None
    to = translate.parse_address(callee or "", "callee")
    rewrite = trunk.matching(config.trunk_rules, None if from_ is None else from_.uri, to.uri)
    to = translate.usable(trunk.rewritten(to, rewrite.to), "callee")
    contact = (
        translate.usable(translate.parse_address(sip.contact, "sip.contact"), "sip.contact")
        if sip and sip.contact
        else None
    )
    credentials, account = translate.credentials(sip), None
    if credentials is None and (account := registered(to.uri.host, config.ua.register_users)) is not None:
        credentials = _credentials(account)
    return Plan(to, credentials, account, from_, contact, sip, rewrite)


def registered(host: str, users: list[RegisterUser]) -> RegisterUser | None:
    """The first enabled registration with a credential at this host (protocol 5.2), whatever the port."""
    for user in users:
        if user.credential is None or user.disabled:
            continue
        try:
            server = parse_uri(f"sip:{user.server}")
        except GrammarError:
            continue  # the registrar complains of it
        if server.host.lower() == host.lower():
            return user
    return None


def granted(user: RegisterUser, *hosts: str) -> Grant | None:
    """For whom the account's credentials are, at these hosts."""
    credentials = _credentials(user)
    if credentials is None or user.credential is None:
        return None
    account = f"{credentials.username}@{user.server.lower()}"
    return Grant(credentials, _lower(hosts), _quoted(user.credential.realm), user.allow_md5, account)


def _credentials(user: RegisterUser) -> Credentials | None:
    return None if user.credential is None else Credentials(user.credential.username, user.credential.password)


def _lower(hosts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(host.lower() for host in hosts)


def _quoted(realm: str | None) -> str | None:
    """A realm as it stands between quotes in a challenge."""
    return quote(realm)[1:-1] if realm else None
