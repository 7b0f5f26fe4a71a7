"""Client sockets: one per call, as the protocol of the clients has them (sections 1 and 4)."""
