"""The records on the wire as typed structs, and the JSON Schema files made from them.

The structs give the exact form a shop should send and a reader of the output topics will get. Reading is more
lenient than the schema: what `stream_rec.stream.quality` can repair safely is repaired and counted.

`python -m stream_rec.codec` writes `stream_rec/schemas/*.json` anew and refuses a change that would break
records or readers of before, unless `--break` is given.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

SCHEMA_DIR = Path(__file__).parent / "schemas"

EventType = Literal[
    "search",
    "impression",
    "click",
    "view_item",
    "add_to_cart",
    "remove_from_cart",
    "add_to_wishlist",
    "share",
    "review",
    "purchase",
    "refund",
]
"""Values of `event_type`; lower case, named as in GA4 e-commerce. Others are counted as `ignored`."""

Command = Literal["freeze", "unfreeze", "promote", "rollback", "pin", "explore", "forget"]
"""Values of `command` in a control record."""

Time = Annotated[int | str, Meta(description="RFC 3339 text (without offset: UTC) or epoch milliseconds")]


Share = Annotated[float, Meta(ge=0, le=1)]
"""A number from 0 to 1."""


class EventItem(msgspec.Struct, kw_only=True, gc=False, omit_defaults=True):
    """One item of an event; text fields are for shops that have no catalogue topic."""

    item_id: Annotated[str | None, Meta(description="catalogue id, at most 256 characters, no control characters")] = (
        None
    )
    position: Annotated[int | None, Meta(description="0-based place in the shown list")] = None
    price: Annotated[float | None, Meta(description="price of one unit, above zero")] = None
    quantity: Annotated[float | None, Meta(description="units, above zero; 1 when not said")] = None
    title: str | None = None
    description: str | None = None
    category: Annotated[str | None, Meta(description="category path, levels separated by ' > '")] = None
    brand: str | None = None


class StrictEventItem(EventItem, kw_only=True, gc=False, forbid_unknown_fields=True):
    """`EventItem` whose decoding fails on an unknown field, so that the fast lane never misses one."""


class Event(msgspec.Struct, kw_only=True, gc=False, omit_defaults=True):
    """A record of the `events` topic, keyed by user: one thing that somebody did in the shop."""

    event_type: Annotated[str, Meta(description="one of: " + ", ".join(get_args(EventType)))]
    event_at: Time
    event_id: Annotated[str | None, Meta(description="unique id; made from the record's position when missing")] = None
    user_id: Annotated[str | None, Meta(description="raw user id; it is pseudonymised on arrival")] = None
    session_id: Annotated[str | None, Meta(description="raw session id; stands for the user when that is missing")] = (
        None
    )
    order_id: str | None = None
    item_id: Annotated[str | None, Meta(description="the one item it is about; or use `items`")] = None
    position: Annotated[int | None, Meta(description="with `item_id`: 0-based place in the shown list")] = None
    price: Annotated[float | None, Meta(description="with `item_id`: price of one unit")] = None
    quantity: Annotated[float | None, Meta(description="with `item_id`: units")] = None
    items: Annotated[list[EventItem] | None, Meta(description="all items it is about, at most 1,000")] = None
    query: Annotated[str | None, Meta(description="search text; e-mail, phone and card numbers are scrubbed")] = None
    decision_id: Annotated[str | None, Meta(description="the slate that caused it, as published")] = None
    value: Annotated[float | None, Meta(description="total value in `currency`")] = None
    currency: Annotated[str | None, Meta(description="ISO 4217 code")] = None
    rating: Annotated[float | None, Meta(description="stars of a review")] = None


class StrictEvent(Event, kw_only=True, gc=False, forbid_unknown_fields=True):
    """`Event` whose decoding fails on an unknown field, so that the fast lane never misses one."""

    items: list[StrictEventItem] | None = None  # type: ignore[assignment]


class ItemRecord(msgspec.Struct, kw_only=True, gc=False, omit_defaults=True):
    """A record of the `items` topic, keyed by item id; a record without a value takes the item off sale."""

    item_id: Annotated[str | None, Meta(description="equal to the record's key, or instead of it")] = None
    title: str | None = None
    description: str | None = None
    category: Annotated[str | None, Meta(description="category path, levels separated by ' > '")] = None
    brand: str | None = None
    price: Annotated[float | None, Meta(description="price of one unit, above zero")] = None
    in_stock: Annotated[bool | None, Meta(description="true when not said")] = None
    updated_at: Time | None = None
    source: str | None = None
    attributes: Annotated[dict[str, Any] | None, Meta(description="anything else; not used by the models")] = None


class Control(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record of the `control` topic: one command to the worker."""

    command: Command
    version: Annotated[str | None, Meta(description="for promote, rollback, pin")] = None
    event_at: Annotated[int | str | None, Meta(description="for rollback: to the state of this event time")] = None
    user_key: Annotated[str | None, Meta(description="for forget: 32 hex digits")] = None
    explore: Annotated[bool | None, Meta(description="for explore: on or off")] = None
    command_id: Annotated[str | None, Meta(description="comes back in the notice that answers")] = None


class Slot(msgspec.Struct, kw_only=True):
    """One place of a slate."""

    item_id: str
    position: Annotated[int, Meta(ge=0, description="0-based")]
    score: Annotated[float, Meta(description="the joint logit that ranked it")]
    utility: Annotated[Share | None, Meta(description="expected utility of an impression, 0 to 1")] = None
    propensity: Annotated[Share | None, Meta(description="0 to 1; null where the slot is deterministic")] = None
    deterministic: Annotated[bool, Meta(description="chosen without a draw; stays out of off-policy estimates")] = False
    explored: Annotated[bool, Meta(description="another item than the greedy choice")] = False
    reasons: Annotated[list[str], Meta(description="words saying why the item is here")] = msgspec.field(
        default_factory=list
    )


class Candidates(msgspec.Struct, kw_only=True):
    """What a slate was chosen from."""

    n: Annotated[int, Meta(ge=0)]
    admitted: Annotated[int | None, Meta(description="how many the slots were drawn from; null: no draw")] = None
    sources: list[str] = msgspec.field(default_factory=list)
    digest: str = ""


class Slate(msgspec.Struct, kw_only=True):
    """A record of the `slates` topic: one ranked list for one user (`*`: users never seen) or one query.

    Its key is the user key, for a query `USER_KEY/DIGEST`: 16 hex digits, the first of the SHA-256 of `query`.
    """

    user_key: Annotated[str, Meta(pattern=r"^([0-9a-f]{32}|\*)$", description="32 hex digits, or *")]
    decision_id: str
    event_at: Time
    valid_until: Annotated[int | str, Meta(description="after this a shop serves the slate of *")]
    watermark: Time
    cause: str
    key_id: Annotated[str, Meta(description="fingerprint of the privacy key that made user_key")]
    model_version: str
    statistics_tick: Annotated[int, Meta(description="tick whose statistics scored it")]
    policy: str
    slots: list[Slot]
    policy_version: int | str | None = None
    candidates: Candidates | None = None
    budget: Annotated[float | None, Meta(description="share of utility spent on exploring")] = None
    arm: Annotated[str | None, Meta(description="control or drawn, where users are compared")] = None
    query: Annotated[
        str | None, Meta(description="what it answers: scrubbed, case folded, single blanks, at most 200 characters")
    ] = None


class VersionNotice(msgspec.Struct, kw_only=True):
    """A record of the `versions` topic: a promotion, rollback, pin or refused command."""

    version: Annotated[str | None, Meta(description="absent in the answer to a command that names none")] = None
    event: Annotated[str | None, Meta(description="initial, promote, champion, rollback, pinned, command")] = None
    parent: Annotated[str | None, Meta(description="version that served before")] = None
    command: Annotated[str | None, Meta(description="the control command that this answers")] = None
    status: Annotated[str | None, Meta(description="of the command: done or refused")] = None
    reason: Annotated[str | None, Meta(description="why the command was refused")] = None
    state_tick: Annotated[int | None, Meta(description="of rollback: tick whose learned half serves again")] = None
    found: Annotated[bool | None, Meta(description="of forget: whether the user was known")] = None
    verdict: dict[str, Any] | None = None
    n_examples: Annotated[int | None, Meta(description="positives the stream had given at the cut")] = None
    url: Annotated[str | None, Meta(description="of the weights; relative to the run folder")] = None
    sha256: Annotated[str | None, Meta(description="of the weights file")] = None
    event_at: int | str | None = None
    tick: int | None = None
    command_id: str | None = None


class LedgerEntry(msgspec.Struct, kw_only=True):
    """A record of the `ledger` topic; entries form a chain by `prev`, and a tick's outputs are committed with it."""

    n: Annotated[int, Meta(ge=0, description="number without gaps")]
    prev: Annotated[str, Meta(description="SHA-256 of the entry before, hex")]
    kind: Literal["genesis", "claim", "tick"]
    settings: Annotated[str | None, Meta(description="digest of the semantic settings")] = None
    build: Annotated[str | None, Meta(description="digest of code, libraries and processor")] = None
    learner: str | None = None
    tick: Annotated[
        dict[str, Any] | None, Meta(description="ranges [topic, partition, first, next, count, digest] and facts")
    ] = None
    effects_digest: str | None = None
    outputs: Annotated[dict[str, list[int]] | None, Meta(description="topic to [records, bytes of their lines]")] = None
    counts: dict[str, int] | None = None
    reasons: Annotated[dict[str, dict[str, int]] | None, Meta(description="outcome to reason to records")] = None
    differed: Annotated[
        list[int] | None, Meta(description="ticks that gave other effects when another build folded them again")
    ] = None


class DeadLetter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record of the `dead-letters` topic: why a record could not be used, and the record itself, sealed."""

    topic: str
    partition: int
    offset: int
    timestamp: Annotated[int, Meta(description="the record's timestamp, epoch milliseconds")]
    stage: str
    reason: str
    length: Annotated[int, Meta(ge=0, description="bytes of the record's value")]
    digest: Annotated[str, Meta(description="keyed digest of the value: equal records, equal digests; reveals nothing")]
    key_id: Annotated[str, Meta(description="fingerprint of the privacy key")]
    sealed: Annotated[str, Meta(description="base64 of AES-SIV(key, headers, first 64 KiB of the value)")]
    truncated: Annotated[bool, Meta(description="the value was longer than what is sealed")] = False


WIRE: dict[str, type[msgspec.Struct]] = {
    "event": Event,
    "item": ItemRecord,
    "control": Control,
    "slate": Slate,
    "version": VersionNotice,
    "ledger": LedgerEntry,
    "dead-letter": DeadLetter,
}
"""Schema file name to struct."""

INPUTS = frozenset({"event", "item", "control"})
"""What others write and we read; the rest we write and others read."""


def json_schemas() -> dict[str, dict[str, Any]]:
    """One self-contained JSON Schema (draft 2020-12) a record, by file name without `.json`.

    >>> json_schemas()["event"]["required"]
    ['event_type', 'event_at']
    """
    out: dict[str, dict[str, Any]] = {}
    for name, struct in WIRE.items():
        (_,), parts = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
        root = parts.pop(struct.__name__)
        out[name] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:stream-rec:{name}",
            **root,
        }
        if parts:
            out[name]["$defs"] = parts
    return out


def breaking_changes(old: dict[str, Any], new: dict[str, Any], *, is_input: bool) -> list[str]:
    """What in `new` would break records or readers of `old`; empty when compatible.

    An input schema may add optional fields and widen types: records of before stay valid. An output schema may add
    fields but not drop, loosen or widen one that readers rely on.

    >>> breaking_changes({"properties": {}}, {"properties": {"a": {}}, "required": ["a"]}, is_input=True)
    ['a: now required']
    """
    return _changes(old, new, is_input, "")


def _changes(old: dict[str, Any], new: dict[str, Any], is_input: bool, at: str) -> list[str]:
    out: list[str] = []
    before, after = old.get("properties", {}), new.get("properties", {})
    out += [f"{at}{name}: removed" for name in before if name not in after]
    was, now = set(old.get("required", ())), set(new.get("required", ()))
    for name in sorted(now - was if is_input else was - now):
        out.append(f"{at}{name}: now {'required' if is_input else 'optional'}")
    for name in before:
        if name in after:
            narrow, wide = (before[name], after[name]) if is_input else (after[name], before[name])
            if not _types(narrow) <= _types(wide):
                out.append(f"{at}{name}: its type changed")
    for name, part in old.get("$defs", {}).items():
        out += _changes(part, new.get("$defs", {}).get(name, {}), is_input, f"{name}.")
    return out


def _types(schema: dict[str, Any]) -> set[str]:
    """The forms a schema admits, as comparable words; values of an enumeration one by one."""
    if "anyOf" in schema:
        return set().union(*(_types(s) for s in schema["anyOf"]))
    if "enum" in schema:
        return {f"={value!r}" for value in schema["enum"]}
    if "$ref" in schema:
        return {str(schema["$ref"])}
    if schema.get("type") == "array":
        return {f"[{t}]" for t in _types(schema.get("items", {}))}
    return {str(schema.get("type", "any"))}


def schema_text(schema: dict[str, Any]) -> str:
    """The text of a schema file: indented, ends with a newline."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def main(arguments: list[str]) -> int:
    """Write the schema files; 1 and nothing written when that would break what was."""
    schemas, broken = json_schemas(), []
    for name, schema in schemas.items():
        path = SCHEMA_DIR / f"{name}.json"
        if path.exists():
            old = msgspec.json.decode(path.read_bytes())
            broken += [f"{name}: {c}" for c in breaking_changes(old, schema, is_input=name in INPUTS)]
    if broken and "--break" not in arguments:
        sys.stderr.write("not written, it would break: " + "; ".join(broken) + "\n")
        return 1
    SCHEMA_DIR.mkdir(exist_ok=True)
    for name, schema in schemas.items():
        (SCHEMA_DIR / f"{name}.json").write_text(schema_text(schema), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
