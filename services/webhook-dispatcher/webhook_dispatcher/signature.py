"""Signature of a webhook: HMAC-SHA256 over the time and the body, so that a target knows who sent it and when.

    X-Dialbus-Signature: t=1772615720,v1=5257a869…

`t` is Unix time in seconds, `v1` the lower-case hex HMAC-SHA256 of `"{t}."` followed by the body's bytes, keyed with
the secret in UTF-8. A target recomputes it over the bytes as received and refuses a `t` that is too old, which keeps
a recorded request from being played again. Source: HMAC is RFC 2104.
"""

import hashlib
import hmac

HEADER = "X-Dialbus-Signature"


def signature(secret: str, timestamp_s: int, body: bytes) -> str:
    """The header's value."""
    digest = hmac.new(secret.encode(), f"{timestamp_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp_s},v1={digest}"
