r"""Handwritten digits as a graph: real data that needs no download."""

import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected


def digits_graph(num_neighbors: int = 10) -> Data:
    r"""Links each of scikit-learn's 1,797 handwritten digits with its nearest neighbours.

    Node features are the 64 pixels, scaled to :math:`[0, 1]`, and the task is to read the digit.
    The graph is undirected and has no self-loops.

    Args:
        num_neighbors (int, optional): The number of nearest neighbours (by Euclidean distance)
            that each image points to before edges are mirrored. (default: :obj:`10`)
    """
    from sklearn.datasets import load_digits  # Takes a second to load.

    pixels, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels)
    # Pixels are integers from 0 to 16, so these squared distances are exact. Together with a
    # stable sort (ties go to the lower index), the graph is the same on every machine.
    norm = x.square().sum(dim=1)
    distance = norm.unsqueeze(1) + norm - 2 * x @ x.t()
    distance.fill_diagonal_(float("inf"))
    neighbors = distance.argsort(dim=1, stable=True)[:, :num_neighbors]
    nodes = torch.arange(x.size(0)).repeat_interleave(num_neighbors)
    edge_index = to_undirected(torch.stack([neighbors.flatten(), nodes]))
    return Data(x=(x / 16).float(), edge_index=edge_index, y=torch.from_numpy(labels).long())
