r"""The :obj:`ogb` package, quiet and safe: its loader and its metric, nothing else of it.

As it is, version 1.3.6 looks on the network for newer versions of itself when imported, asks on
standard input whether to download or to update and exits if the answer is no, renames raw files,
writes beside them, and cannot load what it wrote itself, since PyTorch loads safely.
"""

import csv
import sys
import warnings
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

# All that is in a file of OGB's besides tensors and plain values.
PROCESSED_TYPES: list[Any] = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
SPLIT_TYPES: list[Any] = [
    *(np.ndarray, np.dtype, type(np.dtype(np.int64)), _RECONSTRUCT),
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),  # as NumPy 1 writes it
]

Split = dict[str, Any]  # "train", "valid", "test" -> nodes, or type of node -> nodes


def nodeproppred() -> ModuleType:
    r"""Imports :obj:`ogb.nodeproppred`, which takes a second and, like this, no network."""
    if "ogb" not in sys.modules:
        found = sys.modules.get("outdated")
        # The package that asks for newer versions: for the moment it cannot be imported.
        sys.modules["outdated"] = None  # type: ignore[assignment]
        try:
            import ogb  # noqa: F401
        finally:
            del sys.modules["outdated"]
            if found is not None:
                sys.modules["outdated"] = found
    import ogb.nodeproppred as module

    return module


@lru_cache
def facts(name: str) -> dict[str, str]:
    r"""Returns what the package's table says of a set."""
    table = Path(str(nodeproppred().__file__)).with_name("master.csv")
    with table.open(encoding="utf-8", newline="") as file:
        return {row[""]: row[name] for row in csv.DictReader(file)}


def allowed(types: list[Any]) -> AbstractContextManager[None]:
    r"""Has PyTorch load these types, too, for a while.

    Args:
        types (list): The types.
    """
    # What was allowed before would not be any more afterwards.
    before = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([each for each in types if each not in before])


def read_graph(name: str, release: int, folder: Path) -> Data:
    r"""Has OGB's loader make a graph from raw files.

    Args:
        name (str): The name of the set.
        release (int): The release that the files are of.
        folder (pathlib.Path): A folder with :obj:`RELEASE_v1.txt` (or the like) and :obj:`raw`.
            It is written to.
    """
    base = nodeproppred().PygNodePropPredDataset
    # Without a download there is nothing to ask.
    reader = type(base.__name__, (base,), {"has_download": False})
    meta = {**facts(name), "version": release, "dir_path": str(folder)}
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        # Its tensors share memory with arrays that nobody writes to.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        with allowed(PROCESSED_TYPES):
            return reader(name, meta_dict=meta)[0]


def read_split(name: str, split: str, folder: Path) -> Split:
    r"""Returns a split, which OGB keeps in one of two forms.

    Args:
        name (str): The name of the set.
        split (str): The name of the split.
        folder (pathlib.Path): A folder with :obj:`split`.

    Raises:
        ValueError: If a file holds something else than arrays.
    """
    path = folder / "split" / split / "split_dict.pt"
    if not path.exists():
        hetero = facts(name)["is hetero"] == "True"
        # All that the loader's method asks of itself.
        loader = SimpleNamespace(root=str(folder), meta_info={"split": split}, is_hetero=hetero)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return nodeproppred().PygNodePropPredDataset.get_idx_split(loader)
    try:
        with allowed(SPLIT_TYPES):
            parts = torch.load(path, weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError):
        raise ValueError(
            f"'split_dict.pt' of '{name}' is damaged or holds something else than arrays, which "
            f"is not loaded"
        ) from None
    return {part: torch.as_tensor(nodes) for part, nodes in parts.items()}


@dataclass(frozen=True)
class Score:
    r"""OGB's own metric, between 0 and 1.

    Args:
        name (str): The name of the set.
    """

    name: str

    def __call__(self, out: Tensor, y: Tensor) -> float:
        r"""Compares logits with labels.

        Args:
            out (torch.Tensor): The logits.
            y (torch.Tensor): A class a node; or, for each of :math:`C` labels, whether it holds
                (:obj:`-1` if unknown).

        Shapes:
            - **out:** :math:`(N, C)`
            - **y:** :math:`(N)` or :math:`(N, C)`
        """
        evaluator = _evaluator(self.name)
        if evaluator.eval_metric == "acc":
            return self._eval(y_true=y.unsqueeze(1), y_pred=out.argmax(dim=-1, keepdim=True))
        known = y.double().masked_fill(y < 0, torch.nan)  # OGB's mark of the unknown
        if not ((y == 0).any(dim=0) & (y == 1).any(dim=0)).any():
            raise ValueError("ROC AUC needs nodes of both classes: choose a mask that has them")
        return self._eval(y_true=known, y_pred=out.double())

    def _eval(self, **tensors: Tensor) -> float:
        (value,) = _evaluator(self.name).eval(tensors).values()
        return float(value)


@lru_cache
def _evaluator(name: str) -> Any:
    return nodeproppred().Evaluator(name)
