"""The gateway service: client sockets and REST."""
