import os
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.optim.swa_utils import AveragedModel
from torch_geometric.typing import Adj

from bitgnn.kernels.plain import plain
from bitgnn.kernels.sparse import check_sparse, csr_matrix
from bitgnn.packed import native, reference
from bitgnn.packed.adjacency import NUMBERS
from bitgnn.packed.file import read_program, write_program
from bitgnn.packed.graph import PreparedGraph, PreparedHeteroGraph
from bitgnn.packed.native import NativeProgram
from bitgnn.packed.places import check_place
from bitgnn.packed.program import Program, Relation
from bitgnn.packed.trace import trace
from bitgnn.packed.trace_hetero import trace_hetero, types_of
from bitgnn.packed.trits import TRITS
from bitgnn.packed.validate import as_floats, validate, widths
from bitgnn.packed.verify import left_as_it_is, verify

FEATURES = (*NUMBERS, torch.bool)

# What holds a model, and under which name.
WRAPPERS: dict[type[nn.Module], str] = {
    nn.DataParallel: "module",
    nn.parallel.DistributedDataParallel: "module",
    AveragedModel: "module",
    OptimizedModule: "_orig_mod",
}


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
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
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
            TypeError: If the features are no tensor in memory, or of several types and no dict.
            ValueError: If they are no matrix or have another width than in training, the graph
                does not fit or has weights that the model does not read, or the place of the
                output does not fit, cannot be written, or shares memory with an input.
        """
        if self.program.is_hetero:
            if edge_weight is not None:
                raise ValueError("Of several types of edges none has weights: leave 'edge_weight'")
            if out is not None:
                raise ValueError("Outputs of several types of nodes have no place: leave 'out'")
            return self._hetero(x, edge_index, exact)
        x = _features(x, "x")
        graph = self._graph(x, edge_index, edge_weight)
        program = None
        if native.applies(x):
            program = self._native_program(x.size(1), exact, x.layout != torch.strided)
        width = program.width if program else widths(self.program, x.size(1))[-1]
        if out is not None:
            out = check_place(out, (x.size(0), width), _read(x, graph))
        if program is not None:
            return program(x, graph, out)
        found = reference.run(self.program, x.to_dense(), graph)
        return found if out is None else out.copy_(found)

    def _native_program(self, width: Any, exact: bool, sparse: bool = False) -> NativeProgram:
        key = tuple(sorted(width.items())) if isinstance(width, dict) else width, exact, sparse
        program = self._native.get(key)
        if program is None:
            with self._lock:
                program = self._native.get(key)
                if program is None:
                    program = NativeProgram(self.program, width, exact, sparse)
                    self._native[key] = program
        return program

    def _hetero(self, x: Any, edge_index: Any, exact: bool) -> Any:
        if not isinstance(x, Mapping):
            raise TypeError(f"'x' must be a dict of each type's features (got {type(x).__name__})")
        missing = [kind for kind in self.program.node_types if kind not in x]
        if missing:
            raise ValueError(f"The model reads features of {missing}, which 'x' does not have")
        x = {kind: _features(each, f"x[{kind!r}]").to_dense() for kind, each in x.items()}
        sizes = {kind: each.size(0) for kind, each in x.items()}
        if not isinstance(edge_index, (Mapping, PreparedHeteroGraph)):
            raise TypeError(
                "'edge_index' must be a dict of each type's edges, or a prepared graph (got "
                f"{type(edge_index).__name__})"
            )
        if isinstance(edge_index, Mapping):
            edge_index = PreparedHeteroGraph(edge_index, sizes)
        edge_index.check_use(self.program.edge_steps)
        for kind in self.program.node_types:
            if edge_index.num_nodes.get(kind, sizes[kind]) != sizes[kind]:
                raise ValueError(
                    f"'x' has {sizes[kind]} rows of '{kind}', but the graph "
                    f"{edge_index.num_nodes[kind]} nodes: prepare it with the number of all nodes"
                )
        sizes = {kind: each.size(1) for kind, each in x.items()}
        if all(map(native.applies, x.values())):
            return self._native_program(sizes, exact)(x, edge_index)
        widths(self.program, sizes)  # It raises an error if they do not fit.
        return reference.run(self.program, x, edge_index)

    def _graph(
        self, x: Tensor, edge_index: Any, edge_weight: Tensor | None
    ) -> PreparedGraph | None:
        steps = self.program.edge_steps
        if not steps:
            for name, given in (("edge_index", edge_index), ("edge_weight", edge_weight)):
                if given is not None:
                    raise ValueError(f"The model reads no edges: leave '{name}'")
            return None
        if edge_index is None:
            raise ValueError("The model reads edges: pass 'edge_index', or a prepared graph")
        if not isinstance(edge_index, PreparedGraph):
            graph = PreparedGraph(edge_index, x.size(0), edge_weight, copy=False)
        elif edge_weight is not None:
            raise ValueError("A prepared graph has its weights: pass 'edge_weight' to `prepare`")
        else:
            graph = edge_index
        if graph.num_nodes != x.size(0) or graph.num_sources != x.size(0):
            raise ValueError(
                f"'x' has {x.size(0)} rows, but the graph {graph.num_nodes} nodes: prepare it "
                "with the number of all nodes"
            )
        graph.check_use(steps)
        return graph

    # What code around models calls on them. There is one mode, one device and one type.

    @property
    def training(self) -> bool:
        """Whether it is in training mode, which it never is."""
        return False

    @property
    def device(self) -> torch.device:
        """The device that it runs on, which is the CPU."""
        return torch.device("cpu")

    def train(self, mode: bool = True) -> "PackedModel":
        r"""Returns the model, which has no training mode.

        Args:
            mode (bool, optional): As of :class:`torch.nn.Module`. (default: :obj:`True`)

        Raises:
            ValueError: If it is :obj:`True`.
        """
        if mode:
            raise ValueError(
                "A packed model has no weights to train: train the model that it was packed from, "
                "and pack that again"
            )
        return self

    def eval(self) -> "PackedModel":
        """Returns the model, which is in evaluation mode always."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> "PackedModel":
        r"""Returns the model, which runs on the CPU and returns 32-bit numbers.

        Args:
            *args (optional): As of :meth:`torch.nn.Module.to`.
            **kwargs (optional): As of :meth:`torch.nn.Module.to`.

        Raises:
            ValueError: If the device is another one, or the type.
        """
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type != "cpu":
            raise ValueError(f"A packed model runs on the CPU only (got '{device}')")
        if dtype not in (None, torch.float32):
            raise ValueError(
                f"A packed model returns torch.float32 (got {dtype}): convert its output instead"
            )
        return self

    def cpu(self) -> "PackedModel":
        """Returns the model, which is on the CPU always."""
        return self

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

    # A copy starts without what has addresses of this one.

    def __getstate__(self) -> dict[str, Any]:
        return {"program": self.program, "about": self.about}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __repr__(self) -> str:
        layers = sum(step.op == "linear" for step in self.program.steps)
        left = f", in_32_bits={self.in_32_bits}" if self.in_32_bits else ""
        name = self.about.get("model", "")
        return (
            f"{type(self).__name__}({name}, linear layers={layers}, bytes={self.num_bytes}{left})"
        )


def _features(x: Any, name: str) -> Tensor:
    x = plain(x, name)
    if x.dim() != 2:
        raise ValueError(f"'{name}' has a row for each node, and so two dimensions (got {x.dim()})")
    if x.dtype not in FEATURES:
        raise ValueError(f"'{name}' must hold real numbers (got {x.dtype})")
    if x.layout == torch.strided:
        return x if x.dtype == torch.float32 else x.float()
    if x.layout not in (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo):
        raise TypeError(
            f"'{name}' must be dense, or a sparse matrix in CSR, CSC or COO form (got {x.layout}): "
            f"pass '{name}.to_dense()'"
        )
    check_sparse(x, name)
    if x.layout == torch.sparse_coo:
        if x.dense_dim() > 0:
            return x.to_dense().float()
        x = x.coalesce()
    x = x if x.layout == torch.sparse_csr else x.to_sparse_csr()
    crow, col, values = x.crow_indices(), x.col_indices(), x.values()
    is_contiguous = crow.is_contiguous() and col.is_contiguous() and values.is_contiguous()
    if crow.dtype == torch.long and values.dtype == torch.float32 and is_contiguous:
        return x
    crow, col = crow.long().contiguous(), col.long().contiguous()
    return csr_matrix(crow, col, values.float().contiguous(), tuple(x.shape))


def _read(x: Tensor, graph: PreparedGraph | None) -> list[Tensor]:
    """The memory of a caller that a call reads."""
    is_dense = x.layout == torch.strided
    parts = [x] if is_dense else [x.crow_indices(), x.col_indices(), x.values()]
    return parts if graph is None else [*parts, *graph.borrowed]


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
        _check_whole(name, module)
        strength: Any = getattr(module, "strength", 1.0)
        if strength != 1.0:
            raise ValueError(
                f"'{name}' quantizes at strength {strength}: train on to 1, or "
                "`set_strength(model, 1.0)`"
            )
    nodes, relations = types_of(model)
    with torch.no_grad(), left_as_it_is(model):
        program = trace_hetero(model, nodes, relations) if nodes else trace(model)
    validate(program)
    if not nodes:
        with torch.no_grad():
            verify(model, program)
    return PackedModel(as_floats(program), {"model": type(model).__name__})


def _check_whole(name: str, module: nn.Module) -> None:
    """Refuses what holds a model in order to call it otherwise, and not to do something else."""
    held = next((held for kind, held in WRAPPERS.items() if isinstance(module, kind)), None)
    if held is not None:
        path = f"model.{name}" if name else "model"
        raise ValueError(
            f"'{path}', of type {type(module).__name__}, holds the model: "
            + (f"replace it by '{path}.{held}'" if name else f"pack '{path}.{held}'")
        )


def load(path: str | os.PathLike[str]) -> PackedModel:
    r"""Reads a packed model from a file. Nothing in the file is executed.

    Args:
        path (str or Path): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no packed model, is damaged, or was written by a newer version.
    """
    return PackedModel(*read_program(path))
