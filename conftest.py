"""For every test: how long an example of Hypothesis takes says how busy the machine is, not what it proves."""

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
