"""The coordinator."""

from ucadi.flower.server import app

__all__ = ["app"]
