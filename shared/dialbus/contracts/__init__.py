"""The contracts: every message between services, and the clients' JSON. They know nobody."""
