"""Layers under the transforms of :mod:`torch.func`, forward-mode differentiation and autocast."""

import copy

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vmap
from torch.testing import assert_close

from bitgnn.nn import (
    BitGATConv,
    BitGCNConv,
    BitGraphSAGE,
    BitLinear,
    BitMLP,
    BitSAGEConv,
    BitSGConv,
)

torch.manual_seed(0)
ADJ = (torch.rand(6, 6) < 0.5).float().fill_diagonal_(0.0)
EDGES = ADJ.t().nonzero().t().contiguous()
LAYERS = {
    "linear": lambda: BitLinear(5, 3),
    "mlp": lambda: BitMLP([5, 4, 3], norm=None),
    "gcn": lambda: BitGCNConv(5, 3),
    "sage": lambda: BitSAGEConv(5, 3),
    "gat": lambda: BitGATConv(5, 3),
    "sg": lambda: BitSGConv(5, 3),
    "model": lambda: BitGraphSAGE(5, 4, 2, 3),
}
layers = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture
def call(name):
    """A layer as a function of its parameters and the features."""
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    rest = () if name in ("linear", "mlp") else (EDGES,)
    return layer, lambda params, x: functional_call(layer, params, (x, *rest))


def parameters(layer):
    return {name: each.detach() for name, each in layer.named_parameters()}


@layers
def test_jacobians(call):
    layer, f = call
    params, x = parameters(layer), torch.randn(6, 5)
    expected = torch.autograd.functional.jacobian(lambda x: f(params, x), x)
    assert_close(jacrev(f, argnums=1)(params, x), expected)
    assert_close(jacfwd(f, argnums=1)(params, x), expected)
    out, tangent = jvp(lambda x: f(params, x), (x,), (torch.ones_like(x),))
    assert_close(out, f(params, x))
    assert_close(tangent, expected.sum(dim=(-1, -2)))


@layers
def test_gradients_of_parameters_and_of_each_sample(call):
    layer, f = call
    params, xs = parameters(layer), torch.randn(3, 6, 5)
    each = vmap(grad(lambda params, x: f(params, x).square().sum()), (None, 0))(params, xs)
    for k, x in enumerate(xs):
        layer.zero_grad()
        f(dict(layer.named_parameters()), x).square().sum().backward()
        for name, value in layer.named_parameters():
            assert_close(each[name][k], value.grad, rtol=1e-4, atol=1e-5)


@layers
def test_ensembles(call, name):
    _, f = call
    models = [LAYERS[name]().eval() for _ in range(3)]
    stacked, _ = stack_module_state(models)
    x = torch.randn(6, 5)
    outs = vmap(f, (0, None))(stacked, x)
    for model, out in zip(models, outs, strict=True):
        assert_close(out, f(parameters(model), x))


DERIVATIVES = {
    "grad": lambda f, x: grad(lambda x: f(x).sum())(x),
    "jacrev": lambda f, x: jacrev(f)(x),
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "jvp": lambda f, x: jvp(f, (x,), (x,)),
    "hessian": lambda f, x: hessian(lambda x: f(x).sum())(x),
    "vmap of grad": lambda f, x: vmap(grad(lambda x: f(x).sum()))(x[None]),
    "grad of vmap": lambda f, x: grad(lambda x: vmap(f)(x).sum())(x[None]),
}
ON_GRAPHS = [name for name in LAYERS if name not in ("linear", "mlp")]
FORMS = {"csr": ADJ.to_sparse_csr(), "coo": ADJ.to_sparse_coo(), "csc": ADJ.to_sparse_csc()}


@pytest.mark.parametrize("how", DERIVATIVES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ON_GRAPHS)
def test_derivatives_on_sparse_matrices_are_refused_in_one_sentence(name, form, how):
    layer, x = LAYERS[name](), torch.randn(6, 5)
    with pytest.raises(ValueError, match="grad and jvp cannot follow a sparse adjacency matrix: p"):
        DERIVATIVES[how](lambda x: layer(x, edge_index=FORMS[form]), x)


@pytest.mark.parametrize("quant", [None, "b158"])
@pytest.mark.parametrize("form", ["csr", "csc"])
def test_derivatives_on_sparse_features_are_refused_in_one_sentence(form, quant):
    layer = BitLinear(6, 3, quant=quant)
    with pytest.raises(ValueError, match="CSR or CSC form: pass 'x' dense"):
        grad(lambda params: functional_call(layer, params, (FORMS[form],)).sum())(parameters(layer))


@pytest.mark.filterwarnings("ignore:Converting sparse tensor")
@pytest.mark.parametrize("form", ["csr", "coo"])
@pytest.mark.parametrize("name", ON_GRAPHS)
def test_batches_and_ensembles_on_sparse_matrices(name, form):
    models, adj_t = [LAYERS[name]().eval() for _ in range(2)], FORMS[form]
    xs = torch.randn(3, 6, 5)
    outs = vmap(lambda x: models[0](x, adj_t))(xs)
    assert_close(outs, torch.stack([models[0](x, adj_t) for x in xs]))
    stacked, _ = stack_module_state(models)
    outs = vmap(lambda params: functional_call(models[0], params, (xs[0], adj_t)))(stacked)
    assert_close(outs, torch.stack([model(xs[0], adj_t) for model in models]))


def test_hessian():
    torch.manual_seed(0)
    layer, x = BitLinear(5, 3), torch.randn(2, 5)
    expected = torch.autograd.functional.hessian(lambda x: layer(x).tanh().sum(), x)
    assert expected.abs().max() > 0
    assert_close(hessian(lambda x: layer(x).tanh().sum())(x), expected)


def test_strength_below_one():
    layer, x = BitLinear(5, 3), torch.randn(2, 5)
    layer.strength = 0.5
    expected = torch.autograd.functional.jacobian(layer, x)
    assert_close(jacrev(layer)(x), expected)
    assert_close(jacfwd(layer)(x), expected)


def test_forward_mode():
    layer, x = BitLinear(5, 3), torch.randn(2, 5)
    with forward_ad.dual_level():
        out = layer(forward_ad.make_dual(x, torch.ones(2, 5)))
        tangent = forward_ad.unpack_dual(out).tangent
    assert_close(tangent, torch.autograd.functional.jacobian(layer, x).sum(dim=(-1, -2)))


def test_nothing_is_remembered_of_a_transform():
    layer = BitSAGEConv(5, 3).train()
    adj_t, x = ADJ.to_sparse_csr(), torch.randn(6, 5)
    expected = layer(x, EDGES)
    for _ in range(3):
        vmap(lambda x: layer(x, EDGES))(x.unsqueeze(0))
    assert_close(layer(x, adj_t), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["edge_index", "csr"])
@pytest.mark.parametrize("how", ["autocast", "model"])
@pytest.mark.parametrize("kind", [BitGCNConv, BitSAGEConv, BitGATConv, BitSGConv])
def test_half_precision_trains(kind, how, form, dtype):
    torch.manual_seed(0)
    conv, x = kind(5, 3), torch.randn(6, 5)
    adj = EDGES if form == "edge_index" else ADJ.to_sparse_csr()
    expected = conv(x, adj)
    low = copy.deepcopy(conv)
    if how == "autocast":
        with torch.autocast("cpu", dtype=dtype):
            out = low(x, adj)
    else:
        low, x = low.to(dtype), x.to(dtype)
        out = low(x, adj)
    out.float().sum().backward()
    assert_close(out.float(), expected, rtol=0.05, atol=0.1)
    for name, value in low.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), name
