"""What holds for all four convolutions."""

import copy
import pickle
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.explain.algorithm.utils import set_masks
from torch_geometric.nn import GATConv, GCNConv, MessagePassing, SAGEConv, SGConv

from bitgnn import QuantConfig, set_strength
from bitgnn.nn import BitGATConv, BitGCNConv, BitLinear, BitSAGEConv, BitSGConv

N, F_IN, F_OUT = 6, 8, 4
# Node 5 is isolated.
EDGE_INDEX = torch.tensor([[0, 1, 2, 3, 0, 4], [1, 0, 1, 2, 3, 0]])

CASES: dict[str, tuple[type, type, dict[str, Any]]] = {
    "gcn": (GCNConv, BitGCNConv, {}),
    "gcn-raw": (GCNConv, BitGCNConv, {"normalize": False, "bias": False}),
    "sage": (SAGEConv, BitSAGEConv, {}),
    "sage-max": (SAGEConv, BitSAGEConv, {"aggr": "max", "normalize": True}),
    "sage-project": (SAGEConv, BitSAGEConv, {"project": True, "root_weight": False}),
    "sage-list": (SAGEConv, BitSAGEConv, {"aggr": ["mean", "max", "sum"], "bias": False}),
    "gat": (GATConv, BitGATConv, {"dropout": 0.4}),
    "gat-heads": (GATConv, BitGATConv, {"heads": 2, "concat": False, "residual": True}),
    "sg": (SGConv, BitSGConv, {}),
    "sg-hops": (SGConv, BitSGConv, {"K": 3, "bias": False}),
}
PRESETS = [None, "b158", "reloaded"]

every_case = pytest.mark.parametrize("case", CASES)
# One setting of each convolution is enough where settings make no difference.
every_conv = pytest.mark.parametrize("case", ["gcn", "sage", "gat", "sg"])


def build(case: str, quant: Any = "b158", in_channels: int = F_IN) -> torch.nn.Module:
    torch.manual_seed(1)
    _, twin, kwargs = CASES[case]
    return twin(in_channels, F_OUT, quant=quant, **kwargs)


def build_pyg(case: str) -> torch.nn.Module:
    torch.manual_seed(1)
    original, _, kwargs = CASES[case]
    return original(F_IN, F_OUT, **kwargs)


def step(conv: torch.nn.Module) -> tuple[Tensor, list[Tensor], Tensor]:
    """Output, all gradients and the state of the random numbers after a training step."""
    torch.manual_seed(2)
    x = torch.randn(N, F_IN, requires_grad=True)
    out = conv(x, EDGE_INDEX)
    out.square().sum().backward()
    return out, [x.grad, *(p.grad for p in conv.parameters())], torch.get_rng_state()


def all_equal(tensors: Iterable[Tensor], others: Iterable[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))


@every_case
def test_off_equals_pyg_to_the_last_bit(case):
    original = build_pyg(case)
    rng_original = torch.get_rng_state()
    conv = build(case, quant=None)
    assert torch.equal(torch.get_rng_state(), rng_original)
    assert list(conv.state_dict()) == list(original.state_dict())
    assert all_equal(conv.parameters(), original.parameters())

    out, grads, rng = step(conv)
    out_original, grads_original, rng_original = step(original)
    assert torch.equal(out, out_original)
    assert all_equal(grads, grads_original)
    assert torch.equal(rng, rng_original)


@every_case
@pytest.mark.parametrize("quant", ["b158", "reloaded"])
def test_same_seed_same_weights_as_pyg(case, quant):
    original = build_pyg(case)
    rng_original = torch.get_rng_state()
    conv = build(case, quant)
    assert torch.equal(torch.get_rng_state(), rng_original)
    assert all_equal(conv.parameters(), original.parameters())


@every_case
def test_parameters_are_pygs(case):
    conv, original = build(case), build_pyg(case)
    # One bias, never two.
    assert [name for name, _ in conv.named_parameters()] == [
        name for name, _ in original.named_parameters()
    ]
    conv.reset_parameters()
    original.load_state_dict(conv.state_dict(), strict=True)
    conv.load_state_dict(original.state_dict(), strict=True)
    linears = [m for m in conv.modules() if isinstance(m, BitLinear)]
    assert linears and not [m for m in conv.modules() if type(m).__name__ == "Linear"]


@every_case
def test_repr(case):
    assert str(build(case)) == f"Bit{build_pyg(case)}"
    assert str(build(case, quant=None)) == f"Bit{build_pyg(case)}"


@every_case
@pytest.mark.parametrize("quant", ["b158", "reloaded"])
def test_quantized_output_differs_and_learns(case, quant):
    conv = build(case, quant)
    out, grads, _ = step(conv)
    assert out.shape == (N, F_OUT) and out.isfinite().all()
    assert not torch.allclose(out, step(build_pyg(case))[0], atol=1e-3)
    for grad in grads[1:]:
        assert grad is not None and grad.isfinite().all()
    assert any(grad.abs().sum() > 0 for grad in grads)


@every_case
def test_strength_zero_is_full_precision(case):
    conv, original = build(case).eval(), build_pyg(case).eval()
    set_strength(conv, 0.0)
    x = torch.randn(N, F_IN)
    assert torch.allclose(conv(x, EDGE_INDEX), original(x, EDGE_INDEX), atol=1e-6)
    set_strength(conv, 1.0)
    assert not torch.allclose(conv(x, EDGE_INDEX), original(x, EDGE_INDEX), atol=1e-3)


@every_case
def test_deepcopy_and_pickle(case):
    x = torch.randn(N, F_IN)
    conv = build(case).eval()
    expected = conv(x, EDGE_INDEX)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(other(x, EDGE_INDEX), expected)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1.0)
        assert torch.equal(conv(x, EDGE_INDEX), expected)
        assert not torch.equal(other(x, EDGE_INDEX), expected)


@pytest.mark.gpu
@every_case
def test_gpu_equals_cpu(case):
    x = torch.randn(N, F_IN)
    conv = build(case).eval()
    expected = conv(x, EDGE_INDEX)
    out = conv.cuda()(x.cuda(), EDGE_INDEX.cuda())
    assert torch.allclose(out.cpu(), expected, atol=1e-4)


@every_conv
def test_double(case):
    conv = build(case).double()
    out = conv(torch.randn(N, F_IN, dtype=torch.float64), EDGE_INDEX)
    assert out.dtype == torch.float64


@every_case
@pytest.mark.parametrize("quant", PRESETS)
def test_no_edges(case, quant):
    conv = build(case, quant)
    edge_index = torch.empty(2, 0, dtype=torch.long)
    out = conv(torch.randn(N, F_IN), edge_index)
    assert out.shape == (N, F_OUT) and out.isfinite().all()


@every_conv
@pytest.mark.parametrize("quant", PRESETS)
def test_empty_graph(case, quant):
    x = torch.randn(0, F_IN, requires_grad=True)
    out = build(case, quant)(x, torch.empty(2, 0, dtype=torch.long))
    assert out.shape == (0, F_OUT)
    out.sum().backward()
    assert x.grad.shape == (0, F_IN)


@every_case
def test_nan_stays_in_its_neighbourhood(case):
    x = torch.randn(N, F_IN)
    x[5, 0] = float("nan")  # The isolated node.
    out = build(case).eval()(x, EDGE_INDEX)
    assert out[:5].isfinite().all()


# PyG needs the size of the features for `project` and for several aggregations.
@pytest.mark.parametrize("case", [c for c in CASES if c not in ("sage-project", "sage-list")])
@pytest.mark.parametrize("quant", ["b158", "reloaded"])
def test_lazy(case, quant):
    x = torch.randn(N, F_IN)
    conv = build(case, quant, in_channels=-1)
    out = conv(x, EDGE_INDEX)
    assert out.shape == (N, F_OUT)

    other = build(case, quant, in_channels=-1)
    other.load_state_dict(conv.state_dict(), strict=True)
    assert torch.equal(other.eval()(x, EDGE_INDEX), conv.eval()(x, EDGE_INDEX))


@pytest.mark.parametrize("case", ["gcn", "sage", "sage-max", "sg"])
def test_static_graph(case):
    conv = build(case)
    x = torch.randn(3, N, F_IN)
    out = conv(x, EDGE_INDEX)
    assert out.shape == (3, N, F_OUT)
    for i in range(3):
        assert torch.allclose(out[i], conv(x[i], EDGE_INDEX), atol=1e-6)


@every_case
def test_flow(case):
    x = torch.randn(N, F_IN)
    conv = build(case).eval()
    out = conv(x, EDGE_INDEX)
    conv.flow = "target_to_source"
    assert torch.allclose(conv(x, EDGE_INDEX.flip(0)), out, atol=1e-6)


# As newer releases of torch do by themselves where the graph is to be whole: PyG masks self-loops.
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
@every_conv
@pytest.mark.parametrize("quant", PRESETS)
def test_compile_has_no_graph_break(case, quant):
    torch.compiler.reset()
    x = torch.randn(N, F_IN)
    conv = build(case, quant).eval()
    compiled = torch.compile(conv, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x, EDGE_INDEX), conv(x, EDGE_INDEX), atol=1e-6)

    compiled(x, EDGE_INDEX).sum().backward()
    grads = [p.grad.clone() for p in conv.parameters()]
    conv.zero_grad()
    conv(x, EDGE_INDEX).sum().backward()
    for grad, parameter in zip(grads, conv.parameters(), strict=True):
        assert torch.allclose(grad, parameter.grad, atol=1e-5)


@every_conv
@pytest.mark.parametrize("quant", ["b158", "reloaded"])
def test_explain(case, quant):
    conv = build(case, quant).eval()
    x = torch.randn(N, F_IN)

    mask = torch.nn.Parameter(torch.zeros(EDGE_INDEX.size(1)))
    set_masks(conv, mask, EDGE_INDEX, apply_sigmoid=True)
    conv(x, EDGE_INDEX).square().sum().backward()
    assert mask.grad.abs().sum() > 0

    explainer = Explainer(
        model=build(case, quant).eval(),
        algorithm=GNNExplainer(epochs=3),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={
            "mode": "multiclass_classification",
            "task_level": "node",
            "return_type": "raw",
        },
    )
    explanation = explainer(x, EDGE_INDEX, index=1)
    assert explanation.edge_mask.shape == (EDGE_INDEX.size(1),)
    assert explanation.node_mask.shape == (N, F_IN)
    assert explanation.edge_mask.sum() > 0


@every_conv
def test_explain_beside_pygs_layer(case):
    # PyG compiles `propagate` for each class once. Were a twin compiled from what PyG's
    # layer, in use already, has made of it, then edge masks would be without effect.
    build_pyg(case)
    twin = type(build(case))
    assert twin._orig_propagate is MessagePassing.propagate
    if case == "gat":
        assert twin._orig_edge_updater is MessagePassing.edge_updater


@every_conv
@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse")
def test_views_of_negative_numbers(case, layout):
    # Their memory holds the opposite numbers, which native code must not take for them.
    conv, edges = build(case).eval(), EDGE_INDEX
    if layout == torch.sparse_csr:
        edges = torch.sparse_coo_tensor(EDGE_INDEX, torch.ones(6), (N, N)).to_sparse_csr()
    results = []
    for opposite in (torch.neg, torch._neg_view):
        torch.manual_seed(3)
        x = opposite(torch.randn(N, F_IN)).requires_grad_()
        out = conv(x, edges)
        given = [x, *(p for p in conv.parameters() if p.requires_grad)]
        grads = torch.autograd.grad(out, given, opposite(torch.randn(N, F_OUT)))
        results.append((out, *grads))
    torch.testing.assert_close(*results)


@every_conv
def test_quant_is_checked(case):
    with pytest.raises(ValueError, match="No preset is called 'b159'"):
        build(case, quant="b159")
    with pytest.raises(TypeError, match="'quant' must be a QuantConfig"):
        build(case, quant=1.58)
    config = QuantConfig(weight_measure="absmedian", granularity="channel")
    conv = build(case, quant=config)
    assert conv.quant == config
    assert build(case).quant == QuantConfig()
    assert build(case, quant=None).quant is None
