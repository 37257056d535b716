import pytest
import torch
from torch_geometric.nn import GCN, GINConv

from bitgnn import QuantConfig
from bitgnn.experiment import cost
from bitgnn.experiment.cost import count_operations, share_of_zeros, weight_bytes
from bitgnn.nn import BitGAT, BitGCN, BitGraphSAGE, BitLinear, BitMLP, BitSGC

# 4 nodes with 5 features, 6 edges of which one is a self-loop: 5 + 4 with all self-loops.
X = torch.rand(4, 5)
EDGES = torch.tensor([[0, 1, 1, 2, 3, 3], [1, 0, 2, 1, 3, 0]])
N, F, E, LOOPED = 4, 5, 6, 9


def linear_ops(rows, f_in, f_out, ternary):
    r"""Integer and float operations of a linear layer without bias."""
    products = 2 * rows * f_in * f_out
    return (products, 3 * rows * f_in + rows * f_out) if ternary else (0, products)


@pytest.mark.parametrize("quant", [None, "b158"])
def test_mlp(quant):
    model = BitMLP([F, 7, 3], norm=None, quant=quant)
    first, second = linear_ops(N, F, 7, quant), linear_ops(N, 7, 3, quant)
    biases = N * 7 + N * 3
    expected = (first[0] + second[0], first[1] + second[1] + biases)
    assert count_operations(model, X) == expected


@pytest.mark.parametrize("quant", [None, "b158"])
def test_gcn(quant):
    model = BitGCN(F, 7, 2, 3, quant=quant)
    first, second = linear_ops(N, F, 7, quant), linear_ops(N, 7, 3, quant)
    messages = 2 * LOOPED * 7 + 2 * LOOPED * 3
    biases = N * 7 + N * 3
    expected = (first[0] + second[0], first[1] + second[1] + messages + biases)
    assert count_operations(model, X, EDGES) == expected


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("quant", [None, "b158"])
def test_sgc_counts_propagation_even_if_it_is_cached(quant, cached):
    model = BitSGC(F, 3, K=2, cached=cached, quant=quant)
    model(X, EDGES)
    int_ops, float_ops = linear_ops(N, F, 3, quant)
    expected = int_ops, float_ops + 2 * 2 * LOOPED * F + N * 3
    assert count_operations(model, X, EDGES) == expected


@pytest.mark.parametrize("form", ["edges", "matrix"])
def test_sage(form):
    edges = EDGES
    if form == "matrix":
        edges = torch.sparse_coo_tensor(EDGES.flip(0), torch.ones(E), (N, N)).to_sparse_csr()
    products, mean, biases = 2 * (2 * N * F * 3), E * F + N * F, N * 3
    model = BitGraphSAGE(F, 3, 1, quant=None)
    assert count_operations(model, X, edges) == (0, products + mean + biases)
    # Rows are quantized twice, before and after aggregation, and rescaled as they are gathered.
    model = BitGraphSAGE(F, 3, 1, quant="b158")
    quantize, rescale = 2 * 3 * N * F, E * F + 2 * N * 3
    expected = products, mean + quantize + rescale + biases
    assert count_operations(model, X, edges) == expected


@pytest.mark.parametrize("quant", [None, "b158"])
def test_gat(quant):
    model = BitGAT(F, 6, 2, 3, heads=2, quant=quant)
    first, second = linear_ops(N, F, 6, quant), linear_ops(N, 6, 6, quant)
    scores = 2 * (2 * N * 6)  # Both layers have 6 channels in 2 heads.
    edges = 2 * LOOPED * (2 * 6 + 7 * 2)
    mean_of_heads, biases = N * 6, N * 6 + N * 3
    expected = first[1] + second[1] + 2 * scores + edges + mean_of_heads + biases
    assert count_operations(model, X, EDGES) == (first[0] + second[0], expected)


def test_32_bit_activations_take_float_operations():
    model = BitMLP([F, 3], quant=QuantConfig(activation_bits=None))
    assert count_operations(model, X) == (0, 2 * N * F * 3 + N * 3)


def test_counting_leaves_the_model_as_it_is():
    model = BitGCN(F, 7, 2, 3).train()
    count_operations(model, X, EDGES)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_unknown_convolution():
    model = GINConv(torch.nn.Linear(F, 3))
    with pytest.raises(TypeError, match="operations of 'GINConv' are not known"):
        count_operations(model, X, EDGES)


def test_operations_of_a_pyg_model():
    assert count_operations(GCN(F, 7, 2, 3), X, EDGES) == count_operations(
        BitGCN(F, 7, 2, 3, quant=None), X, EDGES
    )


@pytest.mark.parametrize(
    ("quant", "weight", "scales"),
    [
        (QuantConfig(), 3, 1),  # 12 trits in 3 bytes.
        (QuantConfig(granularity="channel"), 3, 4),
        (QuantConfig(weight_bits=4), 6, 1),
        (QuantConfig(weight_bits=3), 5, 1),
        (QuantConfig(weight_bits=8), 12, 1),
        (QuantConfig(weight_bits=None), 48, 0),
        (None, 48, 0),
    ],
)
def test_weight_bytes(quant, weight, scales):
    model = BitLinear(3, 4, quant=quant)
    assert weight_bytes(model) == (weight + 4 * scales + 16, 48 + 16)


def test_share_of_zeros():
    model = torch.nn.Sequential(BitLinear(4, 1), BitLinear(4, 1), torch.nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0, 0.1, -1.0]]))
        model[1].weight.copy_(torch.tensor([[1.0, 0.1, 0.1, 0.1]]))
    assert share_of_zeros(model) == 4 / 8
    assert share_of_zeros(torch.nn.Linear(4, 4)) is None


def test_cost_on_cora(data_root):
    from bitgnn.data import task

    data = task("Cora", data_root).data
    found = cost(BitGCN(1433, 64, 2, 7), data.x, data.edge_index)
    weights = 1433 * 64 + 64 * 7
    assert found.weight_bytes_fp32 == 4 * (weights + 64 + 7)
    assert found.weight_bytes == 18343 + 90 + 2 * 4 + 4 * (64 + 7)
    assert found.int_ops == 2 * 2708 * weights
    assert 0 < found.zeros < 1
