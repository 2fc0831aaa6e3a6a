"""MovieLens 100K: ratings with titles, for agreement with published numbers (GroupLens, research use).

Reads the RecBole form (`ml-100k.inter`, `ml-100k.item`, with a header) and the original `u.data`. A rating becomes a
`review`; ratings of 4 and more are positive in the learning settings. The file is not sorted by time; import sorts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stream_rec.adapters.shape import said
from stream_rec.errors import SettingsError
from stream_rec.io.loaders import Event, Fields, Table, number

_RATINGS = ("user_id", "item_id", "rating", "timestamp")


class MovieLens100K:
    """Loader of the dataset: ratings files and, for the catalogue, the item file beside them."""

    def __init__(self) -> None:
        self._items: dict[str, dict[str, Any]] = {}

    def table(self, header: Sequence[str]) -> Table:
        """Told apart by the header; `u.data` has none and four numbers instead."""
        names = [name.partition(":")[0] for name in header]
        if set(_RATINGS) <= set(names):
            return Table(names, self._event)
        if {"item_id", "movie_title"} <= set(names):
            return Table(names, self._item)
        if len(header) == len(_RATINGS) and all(field.isdigit() for field in header):
            return Table(_RATINGS, self._event, headless=True)
        raise SettingsError(
            f"movielens-100k: a file whose first line has {len(header):,} fields, not the known names, is neither "
            "ratings nor titles; give ml-100k.inter (or u.data) and, for --items, ml-100k.item"
        )

    def items(self) -> Iterator[dict[str, Any]]:
        """One record a film: title with the year, genres as category."""
        yield from self._items.values()

    def _event(self, row: Fields) -> Event:
        seconds = number(row["timestamp"])
        return said(
            event_type="review",
            event_at=seconds * 1000 if isinstance(seconds, int) else seconds,
            user_id=row["user_id"],
            item_id=row["item_id"],
            rating=number(row["rating"]),
        )

    def _item(self, row: Fields) -> None:
        year = row.get("release_year", "")
        self._items[row["item_id"]] = said(
            item_id=row["item_id"],
            title=f"{row['movie_title']} ({year})" if year else row["movie_title"],
            category=row.get("class", ""),
            source="movielens-100k",
        )
