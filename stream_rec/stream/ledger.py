"""The chained ledger: each entry carries the digest of the one before. The ledger is the truth."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from stream_rec.errors import LedgerMismatch

GENESIS_CHAIN = "0" * 64


def chain_of(entry: bytes) -> str:
    """Digest of an entry as written; `prev` inside it makes the chain."""
    return hashlib.sha256(entry).hexdigest()


def encode(number: int, prev: str, kind: str, body: dict[str, Any]) -> bytes:
    """One ledger entry. `kind` is `genesis`, `claim` or `tick`."""
    return msgspec.json.encode({"n": number, "prev": prev, "kind": kind, **body}, order="sorted")


def decode(entry: bytes, offset: int) -> dict[str, Any]:
    """Read an entry back.

    Raises:
        LedgerMismatch: it is not a ledger entry; the message names its offset.
    """
    try:
        data = msgspec.json.decode(entry)
        if isinstance(data, dict) and {"n", "prev", "kind"} <= data.keys():
            return data
    except msgspec.DecodeError:
        pass
    raise LedgerMismatch(
        f"the ledger holds a foreign record at offset {offset}; restore the ledger or start a new pipeline"
    )
