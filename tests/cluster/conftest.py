"""One deployment for all tests of the session."""

from deployment import deployment

__all__ = ["deployment"]
