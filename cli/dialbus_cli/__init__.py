"""The dialbus command: run the ensemble, place a call from a softphone."""
