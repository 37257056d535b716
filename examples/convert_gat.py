"""Turns a trained PyG GAT into a ternary one and fine-tunes it.

python examples/convert_gat.py
"""

import torch
import torch.nn.functional as F
from torch_geometric.nn import GAT

from bitgnn import convert, task

torch.manual_seed(0)
digits = task("Digits")  # Needs no download; task("Cora") works the same.
data, split = digits.data, digits.split(seed=0)


def train(model, epochs, lr):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        model.train()
        optimizer.zero_grad()
        out = model(data.x, data.edge_index)
        F.cross_entropy(out[split.train], data.y[split.train]).backward()
        optimizer.step()


@torch.no_grad()
def test(model):
    model.eval()
    return digits.evaluate(model(data.x, data.edge_index), split.test)


model = GAT(digits.num_features, 64, num_layers=2, out_channels=digits.num_classes, heads=8)
train(model, epochs=60, lr=0.005)
print(f"PyG's GAT, 32-bit:           {test(model):.1f} %")

ternary = convert(model)  # A copy; the weights are kept as latent weights.
print(f"Converted: {', '.join(ternary.converted)}")
print(f"Ternary, not trained:        {test(ternary):.1f} %")

train(ternary, epochs=60, lr=0.005)
print(f"Ternary, 60 epochs of tuning: {test(ternary):.1f} %")
