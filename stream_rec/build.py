"""What computes: code, libraries, processor. Bytes are promised within a build."""

from __future__ import annotations

import hashlib
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np

from stream_rec import __version__

LIBRARIES = ("cryptography", "msgspec", "numpy", "safetensors", "threadpoolctl")
LEARNED_WITH = ("tokenizers", "torch", "transformers")
"""What a text encoder is run with."""


@cache
def describe(encoder: str | None = None) -> dict[str, str]:
    """Everything that may change a bit of the result, by name; `encoder` is the text encoder's revision, if any."""
    source = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        source.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    libraries = {name: metadata.version(name) for name in (*LIBRARIES, *(LEARNED_WITH if encoder else ()))}
    return {
        "stream_rec": __version__,
        "source": source.hexdigest()[:16],
        "python": platform.python_version(),
        "machine": f"{sys.platform}-{platform.machine()}",
        "cpu": _instruction_set(),
        "threads": "1",
        "device": "cpu",
        **libraries,
        **({"encoder": encoder} if encoder else {}),
    }


def _instruction_set() -> str:
    """Digest of the instruction sets that numpy may dispatch to; another set may round otherwise."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:16]


@cache
def digest(encoder: str | None = None) -> str:
    """16 hex digits that stand for `describe(encoder)`."""
    return hashlib.sha256(msgspec.json.encode(describe(encoder), order="sorted")).hexdigest()[:16]
