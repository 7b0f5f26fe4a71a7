"""Descriptions that the gateway serves; the JSON files beside this one are written by `make contracts`."""
