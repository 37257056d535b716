import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitgnn import pack
from bitgnn.nn import BitLinear
from bitgnn.packed.lower import Unsupported


class Model(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.lin, self.act, self.call = BitLinear(5, 5), nn.ReLU(inplace=True), call

    def forward(self, x):
        return self.call(self, x)


def relu_then_read(model, x):
    h = model.lin(x)
    y = h.relu_()
    return h + y


def features_then_read(model, x):
    y = x.relu_()
    return model.lin(x) + model.lin(y)


def added_then_read(model, x):
    h = z = model.lin(x)
    z += x
    return model.lin(h)


def dropped_then_read(model, x):
    h = model.lin(x)
    z = F.dropout(h, training=False)
    z.relu_()
    return model.lin(h)


@pytest.mark.parametrize(
    "call",
    [
        relu_then_read, features_then_read, added_then_read, dropped_then_read,
        lambda model, x: (lambda h: model.act(h) + h)(model.lin(x)),
        lambda model, x: (lambda h: F.elu(h, inplace=True) + h)(model.lin(x)),
        lambda model, x: (lambda h: F.elu(h, 1.0, True) + h)(model.lin(x)),
    ],
)  # fmt: skip
def test_value_that_is_read_after_it_was_changed_in_place_is_refused(call):
    with pytest.raises(Unsupported, match="in place, which '.*' reads afterwards"):
        pack(Model(call).eval())


def added(model, x):
    h = model.lin(x)
    h += model.lin(h)
    return model.lin(h)


@pytest.mark.parametrize(
    "call",
    [
        added,
        lambda model, x: model.act(model.lin(x)),
        lambda model, x: model.lin(x).relu_(),
        lambda model, x: (lambda h: model.lin(h) + h.relu_())(model.lin(x)),
    ],
)
def test_other_operations_in_place_are_packed(call):
    torch.manual_seed(0)
    model, x = Model(call).eval(), torch.randn(7, 5)
    packed = pack(model)
    torch.testing.assert_close(packed(x, exact=True), model(x.clone()).detach())
