import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.typing import Adj

from bitgnn.kernels.sparse import csr_matrix
from bitgnn.packed import native, reference
from bitgnn.packed.file import read_program, write_program
from bitgnn.packed.graph import PreparedGraph, PreparedHeteroGraph
from bitgnn.packed.native import NativeProgram
from bitgnn.packed.program import Program, Relation
from bitgnn.packed.trace import trace
from bitgnn.packed.trace_hetero import trace_hetero, types_of
from bitgnn.packed.trits import TRITS
from bitgnn.packed.validate import validate


class PackedModel:
    r"""A trained model, frozen: integers, scales and biases, and what is done with them. It has no
    latent weights and cannot be trained.

    Args:
        program (Program): What it does.
        about (dict, optional): More to say of it, for people. (default: none)
    """

    def __init__(self, program: Program, about: dict[str, str] | None = None) -> None:
        self.program = program
        self.about = dict(about or {})
        self._native: dict[tuple[Any, bool, bool], NativeProgram] = {}

    def __call__(
        self,
        x: Tensor | Mapping[str, Tensor],
        edge_index: Adj | Mapping[Relation, Adj] | PreparedGraph | PreparedHeteroGraph = None,
        edge_weight: Tensor | None = None,
        exact: bool = False,
        out: Tensor | None = None,
    ) -> Any:
        r"""Returns what the trained model returns in evaluation. On the native engine features and
        output may be mapped from files, and are read and written block by block of rows.

        Args:
            x (torch.Tensor or dict): The features of the nodes; a sparse matrix, such as bags of
                words, is multiplied as it is. Those of each type, if there are several.
            edge_index (PreparedGraph, torch.Tensor, SparseTensor or dict, optional): The graph,
                best prepared (:func:`prepare`) if it is used more than once.
                (default: :obj:`None`, for a model without a graph)
            edge_weight (torch.Tensor, optional): The weights of the edges, if the graph is not
                prepared. (default: :obj:`None`)
            exact (bool, optional): If set to :obj:`True`, no number is rounded that the trained
                model does not round, which is slower. (default: :obj:`False`)
            out (torch.Tensor, optional): Where to write the output, contiguous. (default:
                :obj:`None`, in memory of its own)

        Shapes:
            - **x:** :math:`(|\mathcal{V}|, F_{in})`
            - **output:** :math:`(|\mathcal{V}|, F_{out})`, of type :obj:`torch.float32`

        Raises:
            TypeError: If the features are no tensor, or of several types and no dict.
            ValueError: If they are no matrix or have another width than in training, or the graph
                or the place of the output does not fit.
        """
        if self.program.is_hetero:
            if edge_weight is not None:
                raise ValueError("Of several types of edges none has weights: leave 'edge_weight'")
            if out is not None:
                raise ValueError("Outputs of several types of nodes have no place: leave 'out'")
            return self._hetero(x, edge_index, exact)
        x = _features(x)
        graph = self._graph(x, edge_index, edge_weight)
        if not native.applies(x):
            found = reference.run(self.program, x.to_dense(), graph)
            return found if out is None else _place(out, found.shape).copy_(found)
        key = x.size(1), exact, x.layout != torch.strided
        if key not in self._native:
            self._native[key] = NativeProgram(self.program, *key)
        program = self._native[key]
        out = None if out is None else _place(out, (x.size(0), program.width))
        return program(x, graph, out)

    def _hetero(self, x: Any, edge_index: Any, exact: bool) -> Any:
        if not isinstance(x, Mapping):
            raise TypeError(f"'x' must be a dict of each type's features (got {type(x).__name__})")
        missing = [kind for kind in self.program.node_types if kind not in x]
        if missing:
            raise ValueError(f"The model reads features of {missing}, which 'x' does not have")
        x = {kind: _features(each).to_dense() for kind, each in x.items()}
        sizes = {kind: each.size(0) for kind, each in x.items()}
        if not isinstance(edge_index, (Mapping, PreparedHeteroGraph)):
            raise TypeError(
                "'edge_index' must be a dict of each type's edges, or a prepared graph (got "
                f"{type(edge_index).__name__})"
            )
        if isinstance(edge_index, Mapping):
            edge_index = PreparedHeteroGraph(edge_index, sizes)
        for kind in self.program.node_types:
            if edge_index.num_nodes.get(kind, sizes[kind]) != sizes[kind]:
                raise ValueError(
                    f"'x' has {sizes[kind]} rows of '{kind}', but the graph "
                    f"{edge_index.num_nodes[kind]} nodes: prepare it with the number of all nodes"
                )
        if not all(map(native.applies, x.values())):
            return reference.run(self.program, x, edge_index)
        widths = {kind: each.size(1) for kind, each in x.items()}
        key = tuple(sorted(widths.items())), exact, False
        if key not in self._native:
            self._native[key] = NativeProgram(self.program, widths, exact)
        return self._native[key](x, edge_index)

    def _graph(
        self, x: Tensor, edge_index: Any, edge_weight: Tensor | None
    ) -> PreparedGraph | None:
        if not self.program.reads_edges:
            return None
        if edge_index is None:
            raise ValueError("The model reads edges: pass 'edge_index', or a prepared graph")
        if not isinstance(edge_index, PreparedGraph):
            return PreparedGraph(edge_index, x.size(0), edge_weight)
        if edge_weight is not None:
            raise ValueError("A prepared graph has its weights: pass 'edge_weight' to `prepare`")
        if {edge_index.num_nodes, edge_index.num_sources} != {x.size(0)}:
            raise ValueError(
                f"'x' has {x.size(0)} rows, but the graph {edge_index.num_nodes} nodes: prepare it "
                "with the number of all nodes"
            )
        return edge_index

    @property
    def in_32_bits(self) -> list[str]:
        r"""The names of the linear layers that are in 32 bits."""
        return [
            step.name
            for step in self.program.steps
            if step.op == "linear" and step.attrs["bits"] is None
        ]

    @property
    def num_bytes(self) -> int:
        r"""The bytes of its parameters in a file, without the description of the model."""
        total, counted = 0, set[int]()
        for step in self.program.steps:
            for name, value in step.tensors.items():
                if id(value) in counted:
                    continue  # A layer that is applied several times is stored once.
                counted.add(id(value))
                ternary = name == "weight" and step.attrs.get("bits") == 1.58
                size = value.numel() * value.element_size()
                total += -(-value.numel() // TRITS) if ternary else size
        return total

    def save(self, path: str | os.PathLike[str]) -> None:
        r"""Writes the model to a file (safetensors), five ternary weights a byte.

        Args:
            path (str or Path): The file, replaced if it is there.
        """
        write_program(self.program, path, self.about)

    def __repr__(self) -> str:
        layers = sum(step.op == "linear" for step in self.program.steps)
        left = f", in_32_bits={self.in_32_bits}" if self.in_32_bits else ""
        name = self.about.get("model", "")
        return (
            f"{type(self).__name__}({name}, linear layers={layers}, bytes={self.num_bytes}{left})"
        )


def _place(out: Tensor, shape: tuple[int, ...]) -> Tensor:
    fits = isinstance(out, Tensor) and out.layout == torch.strided and out.shape == shape
    if not fits or out.dtype != torch.float32 or not out.is_contiguous() or out.requires_grad:
        found = (
            f"{out.dtype}, {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        )
        raise ValueError(
            f"'out' must be contiguous, of type torch.float32 and shape {tuple(shape)}, without a "
            f"gradient (got {found})"
        )
    return out


def _features(x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"'x' must be a tensor (got {type(x).__name__})")
    if x.dim() != 2:
        raise ValueError(f"'x' has a row for each node, and so two dimensions (got {x.dim()})")
    x = x.detach()
    if x.layout == torch.strided:
        return x.float()
    x = x.coalesce() if x.layout == torch.sparse_coo else x
    x = x.to_sparse_csr()
    crow, col, values = x.crow_indices(), x.col_indices(), x.values()
    if crow.dtype == torch.long and values.dtype == torch.float and values.is_contiguous():
        return x
    return csr_matrix(crow.long(), col.long(), values.float().contiguous(), tuple(x.shape))


def pack(model: nn.Module) -> PackedModel:
    r"""Packs a trained model: ternary weights become integers, latent weights go, and batch
    normalization becomes part of the layers.

    Args:
        model (torch.nn.Module): A model of the package's or PyG's layers; it is left as it is.

    Raises:
        TypeError: If it is no model.
        ValueError: If a layer cannot be packed, which the error names, or the model is not yet
            fully quantized.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"'model' must be a torch.nn.Module (got {type(model).__name__})")
    for name, module in model.named_modules():
        strength: Any = getattr(module, "strength", 1.0)
        if strength != 1.0:
            raise ValueError(
                f"'{name}' quantizes at strength {strength}: train on to 1, or "
                "`set_strength(model, 1.0)`"
            )
    nodes, relations = types_of(model)
    with torch.no_grad():
        program = trace_hetero(model, nodes, relations) if nodes else trace(model)
    validate(program)
    return PackedModel(program, {"model": type(model).__name__})


def load(path: str | os.PathLike[str]) -> PackedModel:
    r"""Reads a packed model from a file. Nothing in the file is executed.

    Args:
        path (str or Path): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no packed model, is damaged, or was written by a newer version.
    """
    return PackedModel(*read_program(path))
