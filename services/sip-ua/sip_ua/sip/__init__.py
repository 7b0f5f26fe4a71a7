"""SIP without I/O: messages (RFC 3261 §25), transactions, dialogs, digest and session descriptions."""
