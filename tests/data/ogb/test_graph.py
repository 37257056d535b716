import pytest
import torch
from torch_geometric.data import Data

from bitgnn.data.ogb.graph import mean_of_edges, papers_only, undirected, with_masks

EDGES = torch.tensor([[0, 1, 2, 0, 3], [1, 0, 3, 3, 3]])
SPLIT = {"train": torch.tensor([0]), "valid": torch.tensor([1]), "test": torch.tensor([2])}


def arrays(**changes):
    y = torch.tensor([[0.0], [1.0], [2.0], [float("nan")]])
    return {"x": torch.randn(4, 2), "edge_index": EDGES, "y": y, **changes}


def pairs(edge_index):
    return {tuple(edge) for edge in edge_index.t().tolist()}


def test_undirected():
    data = Data(x=torch.randn(4, 2), edge_index=EDGES, y=torch.zeros(4, 1))
    found = undirected(data)["edge_index"]
    assert pairs(found) == pairs(EDGES) | pairs(EDGES.flip(0))
    assert found.size(1) == len(pairs(found))  # No edge is there twice.


def test_nodes_get_the_mean_of_their_edges():
    features = torch.randn(5, 3)
    data = Data(edge_index=EDGES, edge_attr=features, y=torch.zeros(5, 1), num_nodes=5)
    x = mean_of_edges(data)["x"]
    for node in range(5):
        of_node = features[EDGES[1] == node]
        expected = of_node.mean(dim=0) if len(of_node) else torch.zeros(3)
        torch.testing.assert_close(x[node], expected)


def test_papers():
    writes, cites = ("author", "writes", "paper"), ("paper", "cites", "paper")
    data = Data(
        x_dict={"paper": torch.randn(4, 2)},
        y_dict={"paper": torch.zeros(4, 1)},
        edge_index_dict={writes: EDGES[:, :2], cites: EDGES},
        num_nodes_dict={"author": 2, "paper": 4},
        node_year={"paper": torch.arange(4).view(4, 1)},
    )
    found = papers_only(data)
    assert pairs(found["edge_index"]) == pairs(EDGES) | pairs(EDGES.flip(0))
    assert torch.equal(found["paper___cites___paper"], EDGES)
    assert torch.equal(found["author___writes___paper"], EDGES[:, :2])
    assert found["num_nodes.author"].tolist() == [2]
    assert found["year"].tolist() == [0, 1, 2, 3]


def test_masks_and_labels():
    found = with_masks(arrays(), SPLIT, 3)
    assert found["y"].tolist() == [0, 1, 2, -1]
    assert found["y"].dtype == torch.long
    assert found["train_mask"].tolist() == [True, False, False, False]
    assert found["val_mask"].tolist() == [False, True, False, False]
    assert found["test_mask"].tolist() == [False, False, True, False]


def test_several_labels():
    y = torch.tensor([[0.0, 1.0], [float("nan"), 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = with_masks(arrays(y=y), SPLIT, 2)
    assert found["y"].tolist() == [[0, 1], [-1, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("changes", "split", "message"),
    [
        ({"x": torch.randn(5, 2)}, {}, "5 nodes have features, 4 have labels"),
        ({"edge_index": EDGES + 1}, {}, "leads to none of the 4 nodes"),
        ({"edge_index": EDGES - 1}, {}, "leads to none of the 4 nodes"),
        ({"y": torch.tensor([[0], [1], [2], [3]])}, {}, "a label stands for no class"),
        ({"y": torch.tensor([[0], [1], [2], [-2]])}, {}, "a label stands for no class"),
        ({"y": torch.zeros(4, 2)}, {}, "nodes have 2 labels instead of 3"),
        ({"y": 2 * torch.ones(4, 3)}, {}, "a label stands for no class"),
        ({}, {"valid": torch.tensor([0])}, "in two parts"),
        ({}, {"test": torch.tensor([], dtype=torch.long)}, "part of the split is empty"),
        ({}, {"test": torch.tensor([3])}, "node of the split has no label"),
    ],
)
def test_what_does_not_fit(changes, split, message):
    with pytest.raises(ValueError, match=message):
        with_masks(arrays(**changes), {**SPLIT, **split}, 3)
