r"""Packed models that come from runs, and know of which data they were trained on."""

import json
from typing import Any

from torch import Tensor, nn

from bitgnn.data import Task
from bitgnn.packed.fields import Choice, Field, Integer, Number, Text
from bitgnn.packed.graph import PreparedGraph, prepare
from bitgnn.packed.model import PackedModel, pack
from bitgnn.packed.validate import check_fields
from bitgnn.training.inputs import SPARSE, normalize_features
from bitgnn.training.recipe import FEATURE_NORMS

# What is told of a run with its model: where it comes from and how good it was. The rest, such as
# the recipe, would weigh more than a small model.
KEPT = ("key", "metric", "test", "val")
KEPT_OF_SPEC = ("dataset", "split_kind", "checksum", "model", "precision", "seed")

# The types of these in a file, which anybody may have written.
RUN: dict[str, Field] = {
    "dataset": Text(),
    "split_kind": Text(),
    "checksum": Text(),
    "seed": Integer(0, 2**63 - 1),
    "test": Number(-1e30, 1e30),
    "feature_norm": Choice(FEATURE_NORMS),
}


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

    Raises:
        ValueError: If a part of it is missing, or of another type than a run writes.
    """
    if "run" not in packed.about:
        return None
    try:
        run = json.loads(packed.about["run"])
        if not isinstance(run, dict):
            raise ValueError("it is no object")
        check_fields({name: value for name, value in run.items() if name in RUN}, RUN)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"The packed model's record of its run cannot be read ({error}): pack the run again"
        ) from None
    return run


def inputs(packed: PackedModel, t: Task) -> tuple[Tensor, PreparedGraph | None]:
    r"""Returns what a packed model is called with on a data set: its features, and its graph if
    the model reads one.

    Args:
        packed (PackedModel): The packed model.
        t (Task): The data set.
    """
    reads = packed.program.reads_edges
    graph = prepare(t.data.edge_index, t.num_nodes) if reads else None
    return features(packed, t), graph


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
