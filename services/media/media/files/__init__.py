"""Files to play: fetched, decoded, kept."""
