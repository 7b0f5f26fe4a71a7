"""Where a leg meets its remote party: RTP sockets, or the client's own socket."""
