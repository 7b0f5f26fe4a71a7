"""REST (protocol section 7): thin routes over the bucket of sessions and the bus."""
