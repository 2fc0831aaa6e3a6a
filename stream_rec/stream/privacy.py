"""Who somebody is, kept out: keyed pseudonyms, scrubbed queries, sealed dead letters.

Everything here is a pure function of the privacy key and its arguments, so a replay gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stream_rec.codec import DeadLetter
from stream_rec.errors import SettingsError
from stream_rec.events import Output, Record, Topic

MASK_63 = (1 << 63) - 1
USER_KEY_BYTES = 16
_BLOCK_BYTES = 64
MAX_SEALED_BYTES = 64 * 1024
"""Most bytes of a record's key, headers and value together that a dead letter keeps."""


class Pseudonym(NamedTuple):
    """A session or order without its raw id."""

    number: int
    """63 bits, never 0."""
    stand_in: bytes
    """16 bytes that can stand for a missing user; never equal to a user's key but by chance (2^-128)."""


class Pseudonymiser:
    """Raw ids to keyed digests. Users, sessions, orders and events are separate: equal text, unrelated digests.

    Args:
        key: the privacy key, any non-empty bytes.

    Raises:
        SettingsError: the key is empty.
    """

    def __init__(self, key: bytes) -> None:
        if not key:
            raise SettingsError(
                "privacy.key is empty; give any secret text, for example the output of `openssl rand -hex 32`"
            )
        block = hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key
        self._inner = hashlib.sha256(bytes(b ^ 0x36 for b in block.ljust(_BLOCK_BYTES, b"\0")))
        self._outer = hashlib.sha256(bytes(b ^ 0x5C for b in block.ljust(_BLOCK_BYTES, b"\0")))
        self._session = hashlib.blake2b(digest_size=24, key=subkey(key, "session"))
        self._order = hashlib.blake2b(digest_size=24, key=subkey(key, "order"))
        self._event = hashlib.blake2b(digest_size=8, key=subkey(key, "event"))
        self.fingerprint = fingerprint(key)
        """16 hex digits that tell keys apart and reveal nothing of them."""

    def user_key(self, raw: str) -> bytes:
        """First 16 bytes of HMAC-SHA256(key, UTF-8 of `raw`); its hex is the published `user_key`.

        >>> Pseudonymiser(b"demo").user_key("17850").hex()
        'f056549d55e7ebb07598c301633f5153'
        """
        # HMAC (RFC 2104) from hashes that have taken the key already: a third of the cost of starting anew.
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(raw.encode("utf-8", "surrogatepass"))
        outer.update(inner.digest())
        return outer.digest()[:USER_KEY_BYTES]

    def session(self, raw: str) -> Pseudonym:
        """The session's number and what stands for its user (keyed BLAKE2b)."""
        return _pseudonym(self._session.copy(), raw)

    def order(self, raw: str) -> Pseudonym:
        """The order's number and what stands for its user (keyed BLAKE2b)."""
        return _pseudonym(self._order.copy(), raw)

    def event(self, raw: str) -> int:
        """63-bit keyed digest of an event id (BLAKE2b)."""
        hashed = self._event.copy()
        hashed.update(raw.encode("utf-8", "surrogatepass"))
        return int.from_bytes(hashed.digest(), "little") & MASK_63


def _pseudonym(hashed: hashlib.blake2b, raw: str) -> Pseudonym:
    hashed.update(raw.encode("utf-8", "surrogatepass"))
    digest = hashed.digest()
    return Pseudonym(int.from_bytes(digest[16:], "little") & MASK_63 or 1, digest[:USER_KEY_BYTES])


def subkey(key: bytes, purpose: str, n_bytes: int = 32) -> bytes:
    """A key for one purpose, by HKDF-SHA256 (RFC 5869); keys of different purposes are unrelated."""
    return HKDF(algorithm=SHA256(), length=n_bytes, salt=None, info=b"stream_rec " + purpose.encode()).derive(key)


def fingerprint(key: bytes) -> str:
    """16 hex digits naming the key, for settings digests and the `key_id` of outputs."""
    return subkey(key, "fingerprint", 8).hex()


# A local part, an at sign (also URL-encoded or full width) and a dotted domain.
_EMAIL = re.compile(
    r"[^\s@<>\"'()\[\],;:%\uff20]{1,64}(?:@|%40|\uff20)[^\s@<>\"'()\[\],;:%\uff20]{1,255}\.[^\W\d_]{2,24}",
    re.IGNORECASE,
)
# A run of 7 to 19 digits with single separators; what it is gets decided by `_number_word`.
_DIGITS = re.compile(r"(?<![\w.])(?:\+|\(\+?)?\d(?:[ \-./()]{0,2}\d){6,18}(?!\w)")
_PLAIN = re.compile(r"[1-9]\d*\Z")


def scrub(query: str) -> str:
    """The query with e-mail addresses, card numbers and phone numbers replaced by a word.

    A card number is 13 to 19 digits with a right check digit (Luhn, ISO/IEC 7812-1). A phone number is 7 to 15
    digits that start with `+` or `0`, 9 or more that hold separators, or a plain run of 10 or 11. Other plain runs
    stay: people search by product code (EAN-8, UPC-A, EAN-13).

    >>> scrub("write to ann@shop.example or +44 20 7946 0958, red mug 22423")
    'write to <email> or <phone>, red mug 22423'
    >>> scrub("4111 1111 1111 1111")
    '<card>'
    """
    if "@" in query or "%40" in query or "\uff20" in query:
        query = _EMAIL.sub("<email>", query)
    if sum(map(str.isdecimal, query)) >= 7:
        query = _DIGITS.sub(_number_word, query)
    return query


def _number_word(match: re.Match[str]) -> str:
    text = match.group()
    digits = "".join(c for c in text if c.isdecimal())
    n = len(digits)
    if 13 <= n <= 19 and _luhn(digits):
        return "<card>"
    if _PLAIN.match(text):
        return "<phone>" if n in (10, 11) else text
    least = 7 if text.lstrip("(")[0] in "+0" else 9
    if n > 15:
        # Numbers beside each other are one run, and where one ends nobody can say.
        return text if text.isdecimal() else "<phone>"
    return "<phone>" if n >= least else text


def _luhn(digits: str) -> bool:
    total = 0
    for i, c in enumerate(reversed(digits)):
        d = int(c) * (1 + i % 2)
        total += d - 9 if d > 9 else d
    return total % 10 == 0


class Unsealed(NamedTuple):
    """A dead letter opened again."""

    record: Record
    """As it arrived; its value is cut where `truncated`."""
    stage: str
    reason: str
    truncated: bool


class Sealer:
    """Makes dead letters whose content only the holder of the privacy key can read.

    AES-256-SIV (RFC 5297): deterministic, so a replay writes the same bytes, and bound to the record's position.

    Args:
        key: the privacy key.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(subkey(key, "seal", 64))
        self._digest_key = subkey(key, "dead letter digest")
        self._key_id = fingerprint(key)

    def seal(self, record: Record, *, reason: str, stage: str) -> Output:
        """The dead letter of `record`. `reason` and `stage` are words of this package, never a value."""
        value = record.value or b""
        content, truncated = _pack(record)
        sealed = self._cipher.encrypt(content, _position(record.topic, record.partition, record.offset))
        letter = DeadLetter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp=record.timestamp_ms,
            stage=stage,
            reason=reason,
            length=len(value),
            digest=hmac.digest(self._digest_key, value, "sha256")[:16].hex(),
            key_id=self._key_id,
            sealed=base64.b64encode(sealed).decode(),
            truncated=truncated,
        )
        key = f"{record.topic}/{record.partition}/{record.offset}".encode()
        return Output(Topic.DEAD_LETTERS, key, msgspec.json.encode(letter))

    def unseal(self, value: bytes) -> Unsealed:
        """Open what `seal` made.

        Raises:
            SettingsError: it is no dead letter, was altered, or was sealed under another key.
        """
        try:
            letter = msgspec.json.decode(value, type=DeadLetter)
        except ValueError:
            raise SettingsError("this is not a dead letter written by stream_rec") from None
        if letter.key_id != self._key_id:
            raise SettingsError(
                f"privacy.key has fingerprint {self._key_id}, "
                f"but this dead letter was sealed under {letter.key_id}; use that key"
            )
        position = _position(letter.topic, letter.partition, letter.offset)
        try:
            content = self._cipher.decrypt(base64.b64decode(letter.sealed), position)
        except (InvalidTag, ValueError):
            raise SettingsError(
                "this dead letter was altered after it was written; its content cannot be trusted"
            ) from None
        key, headers, body = msgspec.msgpack.decode(content, type=_Content)
        record = Record(letter.topic, letter.partition, letter.offset, letter.timestamp, key, body, headers)
        return Unsealed(record, letter.stage, letter.reason, letter.truncated)


_Content = tuple[bytes | None, tuple[tuple[str, bytes], ...], bytes | None]


def _position(topic: str, partition: int, offset: int) -> list[bytes]:
    return [topic.encode(), str(partition).encode(), str(offset).encode()]


def _pack(record: Record) -> tuple[bytes, bool]:
    """Key, headers and value as MessagePack, cut in that order of precedence to `MAX_SEALED_BYTES`."""
    room = MAX_SEALED_BYTES
    key = None if record.key is None else record.key[:room]
    room -= len(key or b"")
    headers = []
    for name, content in record.headers:
        room -= len(name.encode("utf-8", "replace")) + len(content)
        if room < 0:
            break
        headers.append((name.encode("utf-8", "replace").decode(), content))
    value = None if record.value is None else record.value[: max(room, 0)]
    cut = len(headers) < len(record.headers) or (record.key, record.value) != (key, value)
    return msgspec.msgpack.encode((key, headers, value)), cut
