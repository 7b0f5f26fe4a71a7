"""The webhook-dispatcher service: HTTP notifications."""
