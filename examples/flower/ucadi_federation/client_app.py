"""A site."""

from ucadi.flower.client import app

__all__ = ["app"]
