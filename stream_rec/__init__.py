"""The worker that keeps a shop's recommendations learning while people shop."""

__version__ = "0.1.0"
