"""A version as a model that MLflow loads and serves: its weights and the statistics it was served with. No pickle.

MLflow copies this file into the model and runs it where the model is loaded; nothing of the package imports it.

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    model.predict(pandas.DataFrame([{"history": [{"item_id": "A1", "at": 1700000000000}], "as_of": 1700000060000}]))

A version with a text encoder reads queries with it; `model_config={"encoder": FOLDER}` says where it is, if it is not
where the worker had it.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import safetensors.numpy

from stream_rec.errors import SettingsError
from stream_rec.io import encoders
from stream_rec.io.registry_outbox import read_columns
from stream_rec.learn.frozen import Asked, Columns, FrozenScorer, Taken, encoder_in

DEFAULT_K = 20
# The signature says what `predict` takes; hints would say it again and worse.
warnings.filterwarnings("ignore", ".*Add type hints to the `predict` method")


class Version(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """Ranks items for users by one version, at the statistics of the tick at which it began to serve.

    A row of the input has `as_of` (epoch ms) and may have `history` (what the user took: `item_id`, `at` in epoch ms
    and, where visits are known, `visit`), `candidates` (item ids; none: everything on sale) and `open_visit` (the
    `visit` that is going on; else the last one while it is fresh), and `query` (text; the scores are then those of the
    worker's slates for it). A row of the output has `item_ids` and `scores`, best first; a candidate that the version
    does not know comes last and has no score.
    """

    _scorer: FrozenScorer | None = None

    # MLflow reads hints of these two as a schema, and its own signature stands beside them.
    def load_context(self, context):  # type: ignore[no-untyped-def]
        """Read weights and statistics."""
        statistics = context.artifacts.get("statistics")
        if statistics is None:
            return
        weights = safetensors.numpy.load(Path(context.artifacts["weights"]).read_bytes())
        columns, name = read_columns(Path(statistics)), (context.model_config or {}).get("encoder", "")
        self._scorer = FrozenScorer(weights, columns, cache(lambda: _encoder(name, columns)))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Rank; `params` may say `k`, the most items of a row.

        Raises:
            ValueError: the version was logged without statistics, or a query needs an encoder that is not here.
        """
        del context
        if self._scorer is None:
            raise ValueError("this version was logged without its statistics; its weights can be read, not served")
        k = int((params or {}).get("k", DEFAULT_K))
        frame = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        ranked = self._scorer.rank([_asked(row) for row in frame.to_dict("records")], k)
        return pd.DataFrame(
            {
                "item_ids": [[item_id for item_id, _ in one] for one in ranked],
                "scores": [[math.nan if score is None else score for _, score in one] for one in ranked],
            },
            index=frame.index,
        )


def _asked(row: Mapping[str, Any]) -> Asked:
    taken = [Taken(str(one["item_id"]), int(one["at"]), _text(one.get("visit"))) for one in _list(row.get("history"))]
    candidates = [str(item_id) for item_id in _list(row.get("candidates"))]
    return Asked(taken, candidates, int(row["as_of"]), _text(row.get("open_visit")), _text(row.get("query")))


def _encoder(name: str, columns: Columns) -> Any:
    """The encoder of that name, which must be the one that the worker had."""
    wanted = columns[""]["encoder"]["revision"]
    try:
        found = encoders.find(name)
    except SettingsError as error:
        raise ValueError(f"this version reads queries with a text encoder (revision {wanted}): {error}") from error
    if found.revision != wanted:
        raise ValueError(f"the encoder {name!r} has revision {found.revision}, this version was made with {wanted}")
    return encoder_in(found.folder, columns)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    """A list of a cell: a list, an array, JSON text, or nothing at all."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str):
        return list(json.loads(value)) if value.strip() else []
    return list(value)


mlflow.models.set_model(Version())
