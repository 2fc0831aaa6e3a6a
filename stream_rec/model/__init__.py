"""Streaming statistics and the rankers on them. Knows no transport, no clock and no tick."""
