import copy
import types

import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, prune
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.typing import OptTensor

from bitgnn import convert, pack
from bitgnn.nn import (
    BitGAT,
    BitGATConv,
    BitGCN,
    BitGCNConv,
    BitGraphSAGE,
    BitLinear,
    BitMLP,
    BitSAGEConv,
    BitSGC,
    BitSGConv,
    layerwise_inference,
)
from bitgnn.nn.altered import alteration

torch.manual_seed(0)
ADJ = (torch.rand(6, 6) < 0.5).float().fill_diagonal_(0.0)
FORMS = {
    "edge_index": ADJ.t().nonzero().t().contiguous(),
    "coo": ADJ.to_sparse_coo().coalesce(),
    "csr": ADJ.to_sparse_csr(),
}
TWINS = {
    BitGCNConv: pyg.GCNConv,
    BitSAGEConv: pyg.SAGEConv,
    BitGATConv: pyg.GATConv,
    BitSGConv: pyg.SGConv,
}
X = torch.randn(6, 4)
HOOKS = [
    f"register_{step}_forward_{when}"
    for step in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    for when in ("pre_hook", "hook")
]


def counted(seen, register):
    """A hook that leaves what it is given, in the form in which PyG takes it back."""

    def hook(module, given, *out):
        seen.append(register)
        if out:
            return out[0]
        return given if len(given) > 1 else given[0]

    return hook


def aggregating_max(conv):
    conv.aggr_module = pyg.MaxAggregation()


def aggregating_twice(conv):
    conv.aggr_module.register_forward_hook(lambda module, given, out: 2 * out)


@pytest.mark.parametrize("register", HOOKS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", TWINS)
def test_hooks_of_message_passing_run_as_in_pyg(kind, form, register):
    seen = {}
    for each in (kind, TWINS[kind]):
        conv, seen[each] = each(4, 3), []
        getattr(conv, register)(counted(seen[each], register))
        conv(X, FORMS[form])
    assert seen[kind] == seen[TWINS[kind]]


class GCNMessage(BitGCNConv):
    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        return 0 * x_j


class SAGEMessage(BitSAGEConv):
    def message(self, x_j: Tensor) -> Tensor:
        return 0 * x_j


class GATMessage(BitGATConv):
    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        return 0 * x_j


class SGMessage(BitSGConv):
    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        return 0 * x_j


class GCNAggregate(BitGCNConv):
    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        return 0 * super().aggregate(inputs, index, None, dim_size)


class GATAggregate(BitGATConv):
    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        return 0 * super().aggregate(inputs, index, None, dim_size)


class SAGEUpdate(BitSAGEConv):
    def update(self, inputs: Tensor) -> Tensor:
        return 0 * inputs


class GATUpdate(BitGATConv):
    def update(self, inputs: Tensor) -> Tensor:
        return 0 * inputs


class GATEdgeUpdate(BitGATConv):
    def edge_update(
        self, alpha_j: Tensor, alpha_i: OptTensor, edge_attr: OptTensor, index: Tensor,
        ptr: OptTensor, dim_size: int,
    ) -> Tensor:  # fmt: skip
        return 0 * alpha_j


OVERRIDES = [
    GCNMessage,
    SAGEMessage,
    GATMessage,
    SGMessage,
    GCNAggregate,
    GATAggregate,
    SAGEUpdate,
    GATUpdate,
    GATEdgeUpdate,
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", OVERRIDES)
def test_methods_of_a_subclass_count_in_every_form(kind, form):
    conv = kind(4, 3)
    expected = torch.zeros(6, 3)
    if isinstance(conv, BitSAGEConv):
        expected = conv.lin_r(X) + conv.lin_l.bias
    elif isinstance(conv, BitSGConv):
        expected = expected + conv.lin.bias
    assert torch.allclose(conv(X, FORMS[form]), expected, atol=0.02)


def test_propagate_of_a_subclass_counts():
    class Mine(BitGATConv):
        def propagate(self, edge_index, size=None, **kwargs):
            return torch.zeros(6, 1, 3)

    assert Mine(4, 3)(X, FORMS["csr"]).abs().sum() == 0


def test_methods_of_an_instance_count():
    conv = BitGATConv(4, 3)
    conv.message = types.MethodType(lambda self, x_j, alpha: 0 * x_j, conv)
    assert conv(X, FORMS["csr"]).abs().sum() == 0


def test_a_product_of_a_subclass_stays_fused():
    class Mine(BitGCNConv):
        def message(self, x_j, edge_weight):
            raise AssertionError

        def message_and_aggregate(self, adj_t, x):
            return 0 * x

    assert Mine(4, 3, bias=False)(X, FORMS["csr"]).abs().sum() == 0


@pytest.mark.parametrize("alter", [aggregating_max, aggregating_twice])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.filterwarnings("ignore:Converting sparse tensor")
def test_an_aggregation_of_its_own_counts_as_in_pyg(kind, form, alter):
    torch.manual_seed(0)
    mine, pygs = kind(4, 3, quant=None), TWINS[kind](4, 3)
    pygs.load_state_dict(mine.state_dict())
    alter(mine), alter(pygs)
    torch.testing.assert_close(mine(X, FORMS[form]), pygs(X, FORMS[form]))


def test_an_explainer_leaves_no_alteration():
    model = BitGAT(4, 8, 2, 3).eval()
    explainer = Explainer(
        model, GNNExplainer(epochs=1), explanation_type="model", edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node"},
    )  # fmt: skip
    expected = pack(model)(X, FORMS["edge_index"])
    explainer(X, FORMS["edge_index"])
    assert all(alteration(module) is None for module in model.modules())
    assert torch.equal(pack(model)(X, FORMS["edge_index"]), expected)


def doubled(module, args, out):
    return 2 * out


def hooked(model, place):
    model.get_submodule(place).register_forward_hook(doubled)
    return model


def weight_normed():
    return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 2)))


def of_its_own(model, place):
    module = model.get_submodule(place)
    module.forward = types.MethodType(lambda self, x: x, module)
    return model


class Always(nn.Dropout):
    def forward(self, x):
        return F.dropout(x, 0.999, training=True)


class Dropping(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


class Stubborn(nn.Dropout):
    """Drops in evaluation, too, by staying in training mode."""

    def train(self, mode=True):
        return super().train(True)


def awake(model, place):
    model.eval().get_submodule(place).train()
    return model


class Adapted(nn.Module):
    """A linear layer with something beside it, which has its weight, too."""

    def __init__(self, lin):
        super().__init__()
        self.lin, self.weight, self.bias = lin, lin.weight, lin.bias

    def forward(self, x):
        return self.lin(x) + x.sum()


def adapted():
    model = BitGCN(4, 8, 2, 3)
    model.convs[0].lin = Adapted(model.convs[0].lin)
    return model


def with_jump(kind):
    model = BitGCN(4, 8, 2, 3, jk="max")
    model.jk.__class__ = kind
    return model


class Jump(pyg.JumpingKnowledge):
    def forward(self, xs):
        return xs[0]


ALTERED = {
    "hook of a layer": (
        lambda: hooked(nn.Sequential(nn.Linear(4, 2)), "0"),
        "a forward hook \\(doubled\\)",
    ),
    "hook of the model": (
        lambda: hooked(nn.Sequential(nn.Linear(4, 2)), ""),
        "The model, a Sequential, has a forward",
    ),
    "hook in a convolution": (
        lambda: hooked(BitGCN(4, 8, 2, 3), "convs.0.lin"),
        "'convs.0.lin', a BitLinear, has a",
    ),
    "hook of dropout": (
        lambda: hooked(BitGCN(4, 8, 2, 3), "dropout"),
        "'dropout', a Dropout, has a forward hook",
    ),
    "weight_norm": (weight_normed, "a forward pre-hook \\(WeightNorm\\).*remove_weight_norm"),
    "spectral_norm": (
        lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 2))),
        "SpectralNorm",
    ),
    "parametrization": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 2))),
        "parametrizations of 'weight'",
    ),
    "pruning": (
        lambda: nn.Sequential(prune.l1_unstructured(nn.Linear(4, 2), "weight", 0.5)),
        "a forward pre-hook \\(L1Uns",
    ),
    "forward of an instance": (
        lambda: of_its_own(BitMLP([4, 8, 3]), "lins.0"),
        "a 'forward' of its own",
    ),
    "dropout that stays on": (
        lambda: nn.Sequential(nn.Linear(4, 2), Always()),
        "'dropout' drops in evaluation, too",
    ),
    "dropout that stays in training mode": (
        lambda: nn.Sequential(nn.Linear(4, 2), Stubborn()),
        "'dropout' drops in evaluation, too",
    ),
    "dropout awake in evaluation": (
        lambda: awake(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)), "1"),
        "'1', a Dropout, is in training mode",
    ),
    "a block awake in evaluation": (
        lambda: awake(nn.Sequential(Dropping()), "0"),
        "'0', a Dropping, is in training mode",
    ),
    "norm awake in evaluation": (
        lambda: awake(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), "1"),
        "'1', a BatchNorm1d, is in training",
    ),
    "another linear map": (
        adapted,
        "'convs.0.lin' is a Adapted, which may do more than a linear map",
    ),
    "another aggregation": (
        lambda: aggregating(BitGraphSAGE(4, 8, 2, 3)),
        "'convs.0', a BitSAGEConv, has another aggregation .MaxAggregation. than aggr='mean' says",
    ),
    "hook of an aggregation": (
        lambda: hooked(BitGCN(4, 8, 2, 3), "convs.0.aggr_module"),
        "an aggregation with a forward hook",
    ),
    "another jump": (lambda: with_jump(Jump), "'jk', a Jump, cannot be packed"),
    "an explainer": (lambda: explained(BitGCN(4, 8, 2, 3)), "an explainer at work"),
}


def explained(model):
    for conv in model.convs:
        conv.explain = True
    return model


def aggregating(model):
    model.convs[0].aggr_module = pyg.MaxAggregation()
    return model


@pytest.mark.parametrize("name", ALTERED)
def test_pack_refuses_what_it_would_lose(name):
    make, match = ALTERED[name]
    model = make()
    with pytest.raises(ValueError, match=match):
        pack(model)


def test_pack_refuses_hooks_of_all_modules():
    handle = register_module_forward_hook(doubled)
    try:
        with pytest.raises(ValueError, match="a forward hook of all modules"):
            pack(BitLinear(4, 2))
    finally:
        handle.remove()


def test_pack_refuses_hooks_of_several_types():
    model = pyg.HeteroConv({("a", "to", "a"): BitSAGEConv(4, 3)})
    hooked(model, "convs.<a___to___a>")
    with pytest.raises(ValueError, match="BitSAGEConv, has a forward hook"):
        pack(model)


def test_pack_takes_what_changes_no_output():
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    expected = pack(copy.deepcopy(model))(X)
    model[0].register_full_backward_hook(lambda *args: None)

    class Mine(nn.Dropout):
        def forward(self, x):
            return F.dropout(x, 0.9, self.training)

    model[1] = Mine()
    assert torch.equal(pack(model)(X), expected)


LAYERWISE = {
    "hook of the model": (
        lambda: hooked(BitGCN(4, 8, 2, 3), ""),
        "'BitGCN' has a forward hook \\(doubled\\)",
    ),
    "hook of an MLP": (lambda: hooked(BitMLP([4, 8, 3]), ""), "'BitMLP' has a forward hook"),
    "hook of a convolution": (
        lambda: hooked(BitGraphSAGE(4, 8, 2, 3), "convs.1"),
        "'convs.1', a BitSAGEConv, has",
    ),
    "hook of dropout": (
        lambda: hooked(BitGCN(4, 8, 2, 3), "dropout"),
        "'dropout', a Dropout, has a forward hook",
    ),
    "forward of an instance": (
        lambda: of_its_own(BitGCN(4, 8, 2, 3), "convs.0"),
        "a 'forward' of its own",
    ),
    "forward of a subclass": (lambda: Own(4, 3), "'Own' has a forward of its own"),
    "awake": (
        lambda: awake(BitGAT(4, 8, 2, 3, dropout=0.5), "convs.0"),
        "'convs.0', a BitGATConv, is in training",
    ),
    "another aggregation": (
        lambda: aggregating(BitGraphSAGE(4, 8, 2, 3)),
        "'convs.0', a BitSAGEConv, has another aggregation",
    ),
    "hook of an aggregation": (
        lambda: hooked(BitGraphSAGE(4, 8, 2, 3), "convs.0.aggr_module"),
        "an aggregation with a forward hook",
    ),
    "another dropout": (lambda: replaced(BitGCN(4, 8, 2, 3), Always(0.5)), "'dropout' is a Always"),
}


class Own(BitSGC):
    def forward(self, x, edge_index):
        return 0 * super().forward(x, edge_index)


def replaced(model, dropout):
    model.dropout = dropout
    return model


@pytest.mark.parametrize("name", LAYERWISE)
def test_layerwise_inference_refuses_what_it_would_lose(name):
    make, match = LAYERWISE[name]
    model = make()
    if name != "awake":
        model.eval()
    edges = None if isinstance(model, BitMLP) else FORMS["edge_index"]
    with pytest.raises(ValueError, match=match):
        layerwise_inference(model, X, edges)


def test_layerwise_inference_refuses_hooks_of_messages():
    model = BitGAT(4, 8, 2, 3).eval()
    model.convs[0].register_message_forward_hook(lambda *args: None)
    with pytest.raises(ValueError, match="'convs.0', a BitGATConv, has a hook of message passing"):
        layerwise_inference(model, X, FORMS["edge_index"])


def test_convert_leaves_what_is_altered():
    model = of_its_own(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), "0")
    model[1].register_full_backward_hook(lambda *args: None)
    with pytest.raises(ValueError, match="a 'forward' of its own.*a backward hook"):
        convert(model)
