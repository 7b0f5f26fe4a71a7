"""The sip-ua service: SIP signalling and the call machine of SIP calls."""
