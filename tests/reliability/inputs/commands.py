"""Bad inputs to the command line, to convert and to check."""

import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import RGCNConv

from bitgnn import check, convert
from bitgnn.nn import BitLinear
from tests.reliability.bad_input import BadInput, CommandError, command

EDGES = torch.tensor([[0, 1], [1, 2]])

BAD_INPUTS = [
    BadInput(
        "bitgnn compare",
        "an option that there is not",
        lambda folder: command("compare", "--bogus"),
        CommandError,
        "No such option",
    ),
    BadInput(
        "bitgnn report",
        "a store with a name that is no text",
        lambda folder: command("report", "--store", folder / "a\udcffb"),
        CommandError,
        "There is no result store",
    ),
    BadInput(
        "convert(model)",
        "a model without linear layers",
        lambda folder: convert(RGCNConv(4, 4, 2)),
        ValueError,
        "its parameters 52 in RGCNConv",
    ),
    BadInput(
        "convert(model, include=...)",
        "a pattern that matches no linear layer",
        lambda folder: convert(nn.Sequential(nn.Linear(4, 2)), include="convs.*"),
        ValueError,
        "its linear layers are ['0']",
    ),
    BadInput(
        "check(model, data)",
        "features instead of a graph",
        lambda folder: check(nn.Linear(4, 2), torch.ones(3, 4)),
        TypeError,
        "must be a torch_geometric.data.Data or HeteroData",
    ),
    BadInput(
        "check(model, data)",
        "a vector of features",
        lambda folder: check(nn.Linear(4, 2), Data(x=torch.ones(4))),
        ValueError,
        "(got (4,))",
    ),
    BadInput(
        "check(model, data)",
        "no features",
        lambda folder: check(BitLinear(4, 2), Data(x=None, edge_index=EDGES)),
        ValueError,
        "set 'data.x', a matrix with a row of features per node (got ['edge_index'])",
    ),
    BadInput(
        "check(model, data)",
        "features of no nodes",
        lambda folder: check(BitLinear(4, 2), Data(x=torch.ones(0, 4), edge_index=EDGES)),
        ValueError,
        "'x' has no rows",
    ),
    BadInput(
        "check(model, data)",
        "features of another width",
        lambda folder: check(BitLinear(4, 2), Data(x=torch.ones(3, 5), edge_index=EDGES)),
        ValueError,
        "'x' has 5 columns, but the model takes 4",
    ),
]
