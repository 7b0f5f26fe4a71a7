"""One leg, from its endpoint to the bus."""
