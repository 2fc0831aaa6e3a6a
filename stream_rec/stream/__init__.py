"""Bytes to columns: validation, privacy, time, joins and windows. Knows no model and does no I/O."""
