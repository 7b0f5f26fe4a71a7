"""The dialogs that one INVITE made, and our requests inside them. Sources: RFC 3261 §12.2.1, §13.2.2.4, §22.

A forked INVITE makes several; they share Call-ID and local tag and differ in the remote tag.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sip_ua.sip.agent import ALLOW, Agent, SendAck, SendRequest
from sip_ua.sip.authentication import with_credentials
from sip_ua.sip.credential_policy import CredentialPolicy
from sip_ua.sip.dialog import Dialog
from sip_ua.sip.extensions import HeaderItems, custom
from sip_ua.sip.headers import Headers
from sip_ua.sip.message import Message, Request, Response, message_from_state, message_to_state
from sip_ua.sip.uri import NameAddr, Uri, parse_uri


@dataclass(frozen=True, slots=True)
class Sent:
    """A request of ours inside a dialog that waits for its final response."""

    request: Request
    next_hop: Uri
    remote_tag: str
    tries: int = 0
    """How often it was sent with credentials."""


class DialogSet:
    """The dialogs by remote tag, which of them is the session's, what we sent inside them, the ACKs to repeat."""

    def __init__(self, agent: Agent, contact: NameAddr) -> None:
        self._agent = agent
        self._contact = contact
        self._dialogs: dict[str, Dialog] = {}
        self._chosen: str | None = None
        self._sent: dict[str, Sent] = {}
        self._acks: dict[tuple[str, int], SendAck] = {}

    def __len__(self) -> int:
        return len(self._dialogs)

    def __iter__(self) -> Iterator[Dialog]:
        return iter(self._dialogs.values())

    def __getitem__(self, remote_tag: str) -> Dialog:
        return self._dialogs[remote_tag]

    def get(self, remote_tag: str | None) -> Dialog | None:
        return self._dialogs.get(remote_tag or "")

    @property
    def current(self) -> Dialog | None:
        """The session's dialog; None before our INVITE is answered."""
        return None if self._chosen is None else self._dialogs[self._chosen]

    def put(self, dialog: Dialog) -> None:
        """Add a dialog, or replace the one with its remote tag."""
        self._dialogs[dialog.remote_tag] = dialog

    def choose(self, remote_tag: str) -> None:
        """Make this dialog the session's."""
        self._chosen = remote_tag

    def forget(self, remote_tag: str) -> None:
        del self._dialogs[remote_tag]

    def clear(self) -> None:
        """Forget the early dialogs of an INVITE that is sent anew."""
        self._dialogs.clear()

    def refresh(self, message: Message, remote_tag: str | None = None) -> None:
        """Take the message's Contact as the target of a dialog, by default the one that a request names."""
        tag = remote_tag if remote_tag is not None else (message.from_tag or "")
        self._dialogs[tag] = self._dialogs[tag].refreshed(message)

    # Requests of ours.

    def request(
        self,
        method: str,
        body: bytes = b"",
        content_type: str | None = None,
        *,
        headers: HeaderItems = (),
        session_timer: HeaderItems = (),
        remote_tag: str | None = None,
    ) -> SendRequest:
        """A new request inside a dialog, by default the session's; `headers` are the client's."""
        tag = self._chosen if remote_tag is None else remote_tag
        assert tag is not None
        dialog = self._dialogs[tag] = self._dialogs[tag].raised()
        request = dialog.request(method, dialog.local_cseq, self._agent.new_via())
        items = [*request.headers.lines()]
        if method != "BYE":
            items.append(("Contact", str(self._contact)))
        if method in ("INVITE", "UPDATE"):
            items += [("Allow", ALLOW), *session_timer]
        items += [("User-Agent", self._agent.user_agent), *custom(headers)]
        if body and content_type:
            items.append(("Content-Type", content_type))
        request = replace(request, headers=Headers(items), body=body)
        self._sent[request.via.branch] = Sent(request, dialog.next_hop, tag)
        return SendRequest(request, dialog.next_hop)

    def take_sent(self, branch: str) -> Sent | None:
        """The request with this branch, which has its final response now; None when nobody waits."""
        return self._sent.pop(branch, None)

    def retry(self, sent: Sent, response: Response | None, policy: CredentialPolicy | None) -> SendRequest | None:
        """A challenged request once more, with credentials; None when it was not, or that is not possible."""
        if response is None:
            return None
        dialog = self._dialogs[sent.remote_tag].raised()
        again = with_credentials(
            sent.request, response, sent.next_hop, policy, self._agent, dialog.local_cseq, sent.tries
        )
        if again is None:
            return None
        self._dialogs[sent.remote_tag] = dialog
        self._sent[again.via.branch] = replace(sent, request=again, tries=sent.tries + 1)
        return SendRequest(again, sent.next_hop)

    def acknowledge(self, invite: Request, remote_tag: str, policy: CredentialPolicy | None) -> SendAck:
        """The ACK to a 2xx, which is kept for copies of the 2xx.

        It has the INVITE's credentials (RFC 3261 §13.2.2.4), unless it goes to somebody they are not for.
        """
        dialog = self._dialogs[remote_tag]
        ack = dialog.request("ACK", invite.cseq.number, self._agent.new_via())
        if policy is not None and policy.reaches(dialog.next_hop):
            proofs = [line for line in invite.headers.lines() if line[0] in ("Authorization", "Proxy-Authorization")]
            ack = replace(ack, headers=Headers([*ack.headers.lines(), *proofs]))
        sending = self._acks[(remote_tag, invite.cseq.number)] = SendAck(ack, dialog.next_hop)
        return sending

    def ack_again(self, response: Response) -> SendAck | None:
        """The ACK that a copy of a 2xx gets; None when the response is no such copy."""
        if response.cseq.method != "INVITE" or not 200 <= response.status < 300:
            return None
        return self._acks.get((response.to_tag or "", response.cseq.number))

    # The state as plain data.

    def to_state(self) -> dict[str, Any]:
        return {
            "dialogs": [dialog.to_state() for dialog in self._dialogs.values()],
            "chosen": self._chosen,
            "sent": [
                [message_to_state(sent.request), str(sent.next_hop), sent.remote_tag, sent.tries]
                for sent in self._sent.values()
            ],
            "acks": [
                [tag, number, message_to_state(ack.request), str(ack.next_hop)]
                for (tag, number), ack in self._acks.items()
            ],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Become what `to_state` told."""
        for stored in state["dialogs"]:
            self.put(Dialog.from_state(stored))
        self._chosen = state["chosen"]
        for message, next_hop, remote_tag, tries in state["sent"]:
            request = message_from_state(message)
            assert isinstance(request, Request)
            self._sent[request.via.branch] = Sent(request, parse_uri(next_hop), remote_tag, tries)
        for tag, number, message, next_hop in state["acks"]:
            ack = message_from_state(message)
            assert isinstance(ack, Request)
            self._acks[(tag, number)] = SendAck(ack, parse_uri(next_hop))
