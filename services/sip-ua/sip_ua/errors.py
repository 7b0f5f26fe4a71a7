"""What can go wrong between a client's wish and a SIP message.

SipUaError
├── BadAddress       a caller or callee that no request can be sent to
└── Unresolvable     a host without an address
"""


class SipUaError(Exception):
    """Any of these; `str()` is fit for a client's `error` event."""


class BadAddress(SipUaError):
    """A caller or callee that is no usable SIP URI."""


class Unresolvable(SipUaError):
    """A host name that has no address."""
