"""A leg to a browser: SDP, ICE and DTLS-SRTP under the RTP that every leg speaks."""
