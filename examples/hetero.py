"""Ternary layers on several types of nodes and edges, in mini-batches; packed in the end.

python examples/hetero.py
"""

import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import to_hetero
from torch_geometric.transforms import ToUndirected
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

from bitgnn import pack, prepare
from bitgnn.nn import BitGraphSAGE

torch.manual_seed(0)

# A small graph of the shape of ogbn-mag, where a paper is of its topic's class.
nodes = {"paper": 1000, "author": 800, "institution": 20, "field_of_study": 50}
edges = {
    ("author", "affiliated_with", "institution"): 800,
    ("author", "writes", "paper"): 3000,
    ("paper", "cites", "paper"): 3000,
    ("paper", "has_topic", "field_of_study"): 2000,
}
data = HeteroData({kind: {"num_nodes": count} for kind, count in nodes.items()})
for (source, name, target), count in edges.items():
    ends = [torch.randint(nodes[kind], (count,)) for kind in (source, target)]
    data[source, name, target].edge_index = torch.stack(ends)
paper, topic = data["paper", "has_topic", "field_of_study"].edge_index
data["paper"].y = torch.zeros(1000, dtype=torch.long)
data["paper"].y[paper] = topic % 5
data["paper"].x = 2 * F.one_hot(data["paper"].y, 128) + torch.randn(1000, 128)
data["paper"].train_mask = torch.rand(1000) < 0.5
data = ToUndirected()(data)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        # Papers have features; those of all other nodes are learned.
        others = {kind: count for kind, count in nodes.items() if kind != "paper"}
        self.features = torch.nn.ModuleDict(
            {kind: torch.nn.Embedding(count, 64) for kind, count in others.items()}
        )
        # A convolution for each type of edges, with sizes that the first call tells.
        gnn = BitGraphSAGE((-1, -1), 64, num_layers=2, out_channels=5, dropout=0.5)
        self.gnn = to_hetero(gnn, data.metadata())

    def x_dict(self, batch):
        learned = {kind: x(batch[kind].n_id) for kind, x in self.features.items()}
        return {"paper": batch["paper"].x, **learned}

    def forward(self, batch):
        return self.gnn(self.x_dict(batch), batch.edge_index_dict)["paper"]


for kind, count in nodes.items():
    data[kind].n_id = torch.arange(count)
batches = [data]  # Without a sampler, the whole graph in one batch.
if WITH_PYG_LIB or WITH_TORCH_SPARSE:
    batches = NeighborLoader(
        data, [10, 10], ("paper", data["paper"].train_mask), batch_size=128, shuffle=True
    )

model = Net()
with torch.no_grad():
    model(data)  # Lazy layers learn their sizes.
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(1, 31):
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        seeds = slice(batch["paper"].get("batch_size"))
        mask = batch["paper"].train_mask[seeds]
        out, y = model(batch)[seeds][mask], batch["paper"].y[seeds][mask]
        loss = F.cross_entropy(out, y)
        loss.backward()
        optimizer.step()
    if epoch % 10 == 0:
        print(f"Epoch {epoch:02d}: loss {loss:.3f}")


def accuracy(out):
    right = out.argmax(dim=-1) == data["paper"].y
    return 100 * right[~data["paper"].train_mask].float().mean()


model.eval()
with torch.no_grad():
    x_dict = model.x_dict(data)
    print(f"Trained: {accuracy(model(data)):.1f} %")
packed = pack(model.gnn)
out = packed(x_dict, prepare(data.edge_index_dict, nodes))
print(f"Packed:  {accuracy(out['paper']):.1f} %, {packed.num_bytes / 1024:.1f} KiB")
