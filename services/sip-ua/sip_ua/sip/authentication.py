"""The second try of a challenged request. Source: RFC 3261 §22."""

from dataclasses import replace

from sip_ua.sip.agent import Agent
from sip_ua.sip.credential_policy import CredentialPolicy
from sip_ua.sip.digest import authorize, parse_challenges
from sip_ua.sip.headers import Headers
from sip_ua.sip.message import Request, Response
from sip_ua.sip.uri import Uri

_REPLACED = ("Via", "CSeq", "Authorization", "Proxy-Authorization")


def is_challenge(response: Response) -> bool:
    """Whether the response asks for credentials."""
    return response.status in (401, 407)


def with_credentials(
    request: Request, response: Response, next_hop: Uri, policy: CredentialPolicy | None, agent: Agent, cseq: int,
    tries: int,
) -> Request | None:  # fmt: skip
    """The request again, with an answer to the challenge, a new branch and this CSeq number.

    `next_hop` is where it was sent, `tries` how often it was sent with credentials: one answer is tried, and one more
    when the server says that only the nonce was stale. None when the response holds no challenge that we can and,
    by the policy, may answer.
    """
    if policy is None or not is_challenge(response):
        return None
    chosen = policy.choose(parse_challenges(response.headers), request.method, next_hop, tries)
    if chosen is None:
        return None
    challenge, nc = chosen
    target, cnonce = str(request.uri), agent.new_token()
    proof = authorize(challenge, policy.credentials, request.method, target, request.body, cnonce=cnonce, nc=nc)
    items = [("Via", agent.new_via()), ("CSeq", f"{cseq} {request.method}"), (challenge.answer_header, proof)]
    items += [line for line in request.headers.lines() if line[0] not in _REPLACED]
    return replace(request, headers=Headers(items))
