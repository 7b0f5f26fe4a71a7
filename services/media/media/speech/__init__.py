"""Speech workers on the bus: recognition and synthesis of one leg."""
