"""An adapter in peft's own two files, so that anything which reads peft's adapters reads ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from stream_rec.errors import JobFailed
from stream_rec.io.durable import replace_file

Adapter = dict[str, npt.NDArray[np.float32]]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write(folder: Path, config: Mapping[str, Any], adapter: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Write an adapter; `peft.PeftModel.from_pretrained(base, folder)` loads it.

    Args:
        folder: made when it is not there.
        config: of `Encoder.adapter_config`.
        adapter: float32 arrays by peft's name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: np.ascontiguousarray(value) for name, value in sorted(adapter.items())}
    replace_file(folder / WEIGHTS, [safetensors.numpy.save(whole, metadata={"format": "pt"})])
    replace_file(folder / CONFIG, [json.dumps(dict(config), indent=2, sort_keys=True).encode() + b"\n"])


def read(folder: Path) -> tuple[dict[str, Any], Adapter]:
    """Config and float32 arrays of a folder that peft or `write` made.

    Raises:
        JobFailed: a file is missing or not what it should be.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        arrays = safetensors.numpy.load((folder / WEIGHTS).read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise JobFailed(f"{folder} holds no adapter of peft ({CONFIG}, {WEIGHTS}): {error}") from None
    return config, {name: value.astype(np.float32) for name, value in arrays.items()}
