"""The user agent: sockets, name look-ups, registrations."""
