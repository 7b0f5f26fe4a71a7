"""RTP as pure functions and sans-IO machines: packets, jitter buffer, telephone-event, RTCP, source checks."""
