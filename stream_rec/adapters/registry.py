"""The adapters by the name of their format, as the setting `events.format` gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stream_rec.adapters.csv_map import csv_row
from stream_rec.adapters.ga4 import ga4
from stream_rec.adapters.segment import segment
from stream_rec.adapters.snowplow import snowplow
from stream_rec.adapters.ubi import ubi

Adapter = Callable[[dict[str, Any]], list[dict[str, Any]]]
"""A JSON object of the format to events of ours, not yet validated; never raises, whatever the object holds."""

ADAPTERS: dict[str, Adapter] = {"ga4": ga4, "segment": segment, "snowplow": snowplow, "ubi": ubi, "csv": csv_row}
"""Format name to adapter; the product's own format, `stream_rec`, needs none."""
