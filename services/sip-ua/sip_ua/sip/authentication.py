"""The second try of a challenged request. Source: RFC 3261 §22."""

from dataclasses import replace

from sip_ua.sip.agent import Agent
from sip_ua.sip.digest import Credentials, authorize, parse_challenges, strongest
from sip_ua.sip.headers import Headers
from sip_ua.sip.message import Request, Response

__all__ = ["Credentials", "is_challenge", "with_credentials"]

_REPLACED = ("Via", "CSeq", "Authorization", "Proxy-Authorization")


def is_challenge(response: Response) -> bool:
    """Whether the response asks for credentials."""
    return response.status in (401, 407)


def with_credentials(
    request: Request, response: Response, credentials: Credentials, agent: Agent, cseq: int, tries: int
) -> Request | None:
    """The request again, with an answer to the challenge, a new branch and this CSeq number.

    `tries` counts how often it was sent with credentials: one answer is tried, and one more when the server says
    that only the nonce was stale. None when that is used up, or the response holds no challenge we can answer.
    """
    challenge = strongest(parse_challenges(response.headers))
    if challenge is None or tries > 1 or (tries == 1 and not challenge.stale):
        return None
    proof = authorize(
        challenge, credentials, request.method, str(request.uri), request.body, cnonce=agent.new_token(), nc=1
    )
    items = [("Via", agent.new_via()), ("CSeq", f"{cseq} {request.method}"), (challenge.answer_header, proof)]
    items += [line for line in request.headers.lines() if line[0] not in _REPLACED]
    return replace(request, headers=Headers(items))
