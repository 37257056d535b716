"""Bad inputs to layers and to what reads them: hooks, modes, methods that would be lost."""

import types

import torch
from torch import nn

from bitgnn import convert, pack
from bitgnn.nn import BitGAT, BitGCN, BitGCNConv, BitLinear, BitSGC, layerwise_inference
from bitgnn.packed.lower import Unsupported
from tests.reliability.bad_input import BadInput

EDGES = torch.tensor([[0, 1], [1, 0]])


def _hooked(model, place, register="register_forward_hook"):
    getattr(model.get_submodule(place), register)(lambda *args: None)
    return model.eval()


def _own_forward(model):
    model.forward = types.MethodType(lambda self, x: x, model)
    return model


def _awake(model, place):
    model.eval().get_submodule(place).train()
    return model


class _Always(nn.Dropout):
    def forward(self, x):
        return nn.functional.dropout(x, self.p, training=True)


class _Doubled(BitSGC):
    def forward(self, x, edge_index):
        return 2 * super().forward(x, edge_index)


class _Adapted(nn.Module):
    def __init__(self, lin):
        super().__init__()
        self.lin = lin

    def forward(self, x):
        return self.lin(x) + x.sum()


def _adapted():
    model = BitGCN(4, 8, 2, 3)
    model.convs[0].lin = _Adapted(model.convs[0].lin)
    return model


def _layerwise(model):
    return layerwise_inference(model, torch.ones(2, 4), EDGES)


def _sparse_second_order(folder):
    x = torch.eye(4).to_sparse_csr().requires_grad_()
    torch.autograd.grad(BitLinear(4, 2)(x).sum(), x, create_graph=True)


def _sparse_derivative(folder):
    conv, adj_t = BitGCNConv(4, 2), torch.eye(4).to_sparse_csr()
    torch.func.grad(lambda x: conv(x, adj_t).sum())(torch.eye(4))


BAD_INPUTS = [
    BadInput(
        "pack(model)",
        "a model in DataParallel",
        lambda folder: pack(nn.DataParallel(BitLinear(4, 2))),
        ValueError,
        "pack 'model.module'",
    ),
    BadInput(
        "pack(model)",
        "a compiled model",
        lambda folder: pack(torch.compile(BitLinear(4, 2))),
        ValueError,
        "pack 'model._orig_mod'",
    ),
    BadInput(
        "pack(model)",
        "a layer with a forward hook",
        lambda folder: pack(_hooked(BitGCN(4, 8, 2, 3), "convs.0.lin")),
        Unsupported,
        "'convs.0.lin', a BitLinear, has a forward hook",
    ),
    BadInput(
        "pack(model)",
        "a convolution with a hook of message passing",
        lambda folder: pack(
            _hooked(BitGAT(4, 8, 2, 3), "convs.0", "register_message_forward_hook")
        ),
        Unsupported,
        "has a hook of message passing",
    ),
    BadInput(
        "pack(model)",
        "weights of weight_norm",
        lambda folder: pack(nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 2)))),
        Unsupported,
        "remove it first (such as by torch.nn.utils.remove_weight_norm",
    ),
    BadInput(
        "pack(model)",
        "a layer whose `forward` was replaced",
        lambda folder: pack(_own_forward(BitLinear(4, 2))),
        Unsupported,
        "a 'forward' of its own",
    ),
    BadInput(
        "pack(model)",
        "a subclass of dropout that drops in evaluation",
        lambda folder: pack(nn.Sequential(nn.Linear(4, 2), _Always())),
        Unsupported,
        "drops in evaluation, too",
    ),
    BadInput(
        "pack(model)",
        "dropout in training mode in a model in evaluation",
        lambda folder: pack(_awake(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)), "1")),
        Unsupported,
        "call `model.eval()` first",
    ),
    BadInput(
        "pack(model)",
        "a convolution whose linear map was replaced",
        lambda folder: pack(_adapted()),
        Unsupported,
        "which may do more than a linear map",
    ),
    BadInput(
        "layerwise_inference(model, x, edge_index)",
        "a model with a forward hook",
        lambda folder: _layerwise(_hooked(BitGCN(4, 8, 2, 3), "")),
        ValueError,
        "call the model on the whole graph",
    ),
    BadInput(
        "layerwise_inference(model, x, edge_index)",
        "a subclass with another `forward`",
        lambda folder: _layerwise(_Doubled(4, 3).eval()),
        ValueError,
        "has a forward of its own",
    ),
    BadInput(
        "layerwise_inference(model, x, edge_index)",
        "a convolution in training mode",
        lambda folder: _layerwise(_awake(BitGAT(4, 8, 2, 3, dropout=0.5), "convs.0")),
        ValueError,
        "call `model.eval()` first",
    ),
    BadInput(
        "convert(model)",
        "nothing but a layer with a hook",
        lambda folder: convert(_hooked(nn.Sequential(nn.Linear(4, 2)), "0")),
        ValueError,
        "a forward hook (<lambda>), which would be lost",
    ),
    BadInput(
        "torch.autograd.grad(..., create_graph=True)",
        "sparse features that need a gradient",
        _sparse_second_order,
        RuntimeError,
        "make them dense",
    ),
    BadInput(
        "torch.func.grad(BitGCNConv)",
        "a sparse adjacency matrix",
        _sparse_derivative,
        ValueError,
        "pass 'edge_index' as edges",
    ),
]
