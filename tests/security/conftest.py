"""Fixtures of the attacks: the ensemble of `tests.ensemble`, started once per worker."""

from tests.ensemble import exchange

__all__ = ["exchange"]
