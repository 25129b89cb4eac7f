"""What this imports is found as well."""

from cakes.cellar import store

__all__ = ["store"]
