r"""Packed models that come from runs, and know of which data they were trained on."""

import json
from typing import Any

from torch import Tensor, nn

from bitgnn.data import Task
from bitgnn.packed.model import PackedModel, pack
from bitgnn.training.inputs import SPARSE, normalize_features

# What is told of a run with its model: where it comes from and how good it was. The rest, such as
# the recipe, would weigh more than a small model.
KEPT = ("key", "metric", "test", "val")
KEPT_OF_SPEC = ("dataset", "split_kind", "checksum", "model", "precision", "seed")


def pack_run(model: nn.Module, record: dict[str, Any]) -> PackedModel:
    r"""Packs the model of a run, with the run's record.

    Args:
        model (torch.nn.Module): The trained model.
        record (dict): The record of its run.

    Raises:
        ValueError: If a layer cannot be packed.
    """
    packed = pack(model)
    spec = record["spec"]
    run = {name: record[name] for name in KEPT} | {name: spec[name] for name in KEPT_OF_SPEC}
    run |= {"feature_norm": spec["recipe"]["feature_norm"], "bitgnn": record["passport"]["bitgnn"]}
    packed.about["run"] = json.dumps(run, sort_keys=True)
    return packed


def run_of(packed: PackedModel) -> dict[str, Any] | None:
    r"""Returns what is told of the run that a packed model comes from, if it comes from one.

    Args:
        packed (PackedModel): The packed model.
    """
    return json.loads(packed.about["run"]) if "run" in packed.about else None


def features(packed: PackedModel, t: Task) -> Tensor:
    r"""Returns the features of a data set as the model was trained on, as a sparse matrix where
    that is faster.

    Args:
        packed (PackedModel): The packed model.
        t (Task): The data set.
    """
    run = run_of(packed)
    norm = "none" if run is None else run["feature_norm"]
    sparse = SPARSE[norm](t.data.x)
    return normalize_features(t.data.x, norm) if sparse is None else sparse
