"""Whom an outbound leg calls and as whom: addresses, trunk rules, credentials, Contact (protocol 5.1, 5.2 and 8).

Pure functions. `plan` needs no address of ours; what depends on the way to the callee is asked of the plan once that
is known. Every leg that a client wants, `invite` and `refer` alike, begins here.
"""

from dataclasses import dataclass

from dialbus.config import Config, RegisterUser, TrunkRewrite
from dialbus.contracts.options import SipOption
from sip_ua.leg import translate, trunk
from sip_ua.sip.agent import Agent
from sip_ua.sip.digest import Credentials
from sip_ua.sip.grammar import GrammarError
from sip_ua.sip.uri import NameAddr, parse_uri


@dataclass(frozen=True, slots=True)
class Plan:
    """A leg that can be placed: its callee has a host, and nothing in it is bad."""

    callee: NameAddr
    credentials: Credentials | None
    """The client's, else those of the registration at the callee's host."""
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
    credentials = translate.credentials(sip) or registered(to.uri.host, config.ua.register_users)
    return Plan(to, credentials, from_, contact, sip, rewrite)


def registered(host: str, users: list[RegisterUser]) -> Credentials | None:
    """The credential of the first enabled registration at this host (protocol 5.2), whatever the port."""
    for user in users:
        if user.credential is None or user.disabled:
            continue
        try:
            server = parse_uri(f"sip:{user.server}")
        except GrammarError:
            continue  # the registrar complains of it
        if server.host.lower() == host.lower():
            return Credentials(user.credential.username, user.credential.password)
    return None
