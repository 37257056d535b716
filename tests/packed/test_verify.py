"""What torch.fx does not see of a forward is found by comparing numbers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitgnn import pack
from bitgnn.nn import BitGCN, BitGCNConv, BitLinear
from bitgnn.packed.lower import Unsupported
from bitgnn.packed.verify import left_as_it_is

torch.manual_seed(0)
X, EDGES = torch.randn(20, 8), torch.randint(0, 20, (2, 80))


class Model(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.conv, self.lin, self.call = BitGCNConv(8, 8), BitLinear(8, 8), call
        self.state, self.seen = None, []

    def forward(self, x, edge_index):
        return self.call(self, x, edge_index)


def by_type(model, x, edge_index):
    x = model.conv(x, edge_index)
    return model.lin(F.relu(x) if isinstance(x, Tensor) else x)


def by_state(model, x, edge_index):
    model.state = (model.state or 0) + 1
    return model.lin(x) if model.state == 1 else model.conv(x, edge_index)


def kept(model, x, edge_index):
    if model.state is None:
        model.state = model.conv(x, edge_index)
    return model.lin(model.state)


class Called(BitGCN):
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs).relu()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Model(by_type), lambda: Model(by_state), lambda: Model(kept),
        lambda: Called(8, 8, 2),
    ],
)  # fmt: skip
def test_what_torch_fx_does_not_see_is_refused(make):
    torch.manual_seed(1)
    with pytest.raises(Unsupported, match="cannot be packed: on a random graph it makes other"):
        pack(make().eval())


def remembers(model, x, edge_index):
    model.state = model.conv(x, edge_index)
    model.seen.append(model.state)
    return model.lin(model.state)


def test_the_model_is_left_as_it_is():
    model = Model(remembers).eval()
    random, before = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    packed = pack(model)
    assert model.state is None and model.seen == []
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(packed(X, EDGES, exact=True), model(X, EDGES).detach())


def test_a_graph_that_a_layer_has_cached_is_no_state():
    model = BitGCN(8, 8, 2, 4, cached=True).eval()
    expected = model(X, EDGES).detach()
    packed = pack(model)
    torch.testing.assert_close(packed(X, EDGES, exact=True), expected)
    torch.testing.assert_close(model(X, EDGES).detach(), expected)  # It still knows its graph.


def test_models_in_16_bits_and_of_no_parameters():
    for model in (BitGCN(8, 8, 2, 4).bfloat16(), nn.Sequential(nn.ReLU())):
        pack(model.eval())


def test_items_that_are_replaced_are_given_back():
    model, one, other = Model(remembers), torch.ones(3), torch.zeros(3)
    model.seen.append(one)
    model.named = {"h": one}
    with left_as_it_is(model):
        model.seen[0] = model.named["h"] = other
    assert model.seen[0] is one and model.named["h"] is one


def test_what_is_set_and_changed_is_given_back():
    model = Model(remembers)
    model.seen.append(1)
    with left_as_it_is(model):
        model.seen.append(2)
        model.seen, model.state, model.more = [3], 4, 5
    assert (model.seen, model.state, hasattr(model, "more")) == ([1], None, False)
