"""The media service: RTP, playout, VAD, DTMF, recording."""
