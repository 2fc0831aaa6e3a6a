"""A version as MLflow's files: the model's code, weights, statistics, and what `predict` takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def save(path: Path, model: Any, artifacts: Mapping[str, Path | None], *, encoder: str) -> None:
    """Write a version in the form that `mlflow.pyfunc.load_model` reads.

    Args:
        path: a folder that is not there yet.
        model: `mlflow.models.Model` of the run and the LoggedModel.
        artifacts: name to file; what is not there is left out.
        encoder: what `model.encoder` was.
    """
    import mlflow.pyfunc

    mlflow.pyfunc.save_model(
        str(path),
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={name: str(at) for name, at in artifacts.items() if at is not None and at.exists()},
        signature=_signature(),
        pip_requirements=["stream-rec"],
        model_config={"encoder": encoder},
        mlflow_model=model,
    )


def _signature() -> Any:
    from mlflow.models.signature import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    taken = Object(
        [Property("item_id", DataType.string), Property("at", DataType.long),
         Property("visit", DataType.string, required=False)]
    )  # fmt: skip
    asked: list[Any] = [
        ColSpec(Array(taken), "history", required=False),
        ColSpec(DataType.string, "query", required=False),
        ColSpec(Array(DataType.string), "candidates", required=False),
        ColSpec(DataType.string, "open_visit", required=False),
        ColSpec(DataType.long, "as_of"),
    ]
    told: list[Any] = [ColSpec(Array(DataType.string), "item_ids"), ColSpec(Array(DataType.double), "scores")]
    return ModelSignature(Schema(asked), Schema(told), ParamSchema([ParamSpec("k", "long", 20)]))
