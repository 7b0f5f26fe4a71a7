"""The worker: its service on the bus, the engine and its 20 ms clock."""
