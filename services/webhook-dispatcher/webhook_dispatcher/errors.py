"""The dispatcher's exceptions.

WebhookError
├── NotReached       no response: nobody listens, or the connection broke; another attempt may help
├── NoResponse       the target took the request and did not answer in time
└── NotSendable      the request itself is wrong (URL, header, method); another attempt would fail the same way
"""


class WebhookError(Exception):
    """One attempt without a response; never raised as itself."""

    retry = False
    phrase = "failed"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.phrase}: {self.detail}" if self.detail else self.phrase


class NotReached(WebhookError):
    """The target could not be reached, or broke the connection."""

    retry = True
    phrase = "webhook not reachable"


class NoResponse(WebhookError):
    """The attempt's time was over."""

    phrase = "webhook timeout"


class NotSendable(WebhookError):
    """No valid HTTP request can be made of the settings."""

    phrase = "webhook request not valid"
