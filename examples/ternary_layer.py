"""A PyG model with ternary layers: the only change is the name of the layer.

python examples/ternary_layer.py
"""

import torch
import torch.nn.functional as F

from bitgnn import task
from bitgnn.nn import BitGCNConv


class Net(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels):
        super().__init__()
        self.conv1 = BitGCNConv(in_channels, hidden_channels, cached=True)
        self.conv2 = BitGCNConv(hidden_channels, out_channels, cached=True)

    def forward(self, x, edge_index):
        x = self.conv1(x, edge_index).relu()
        x = F.dropout(x, p=0.5, training=self.training)
        return self.conv2(x, edge_index)


torch.manual_seed(0)
digits = task("Digits")  # Needs no download; task("Cora") works the same.
data, split = digits.data, digits.split(seed=0)

model = Net(digits.num_features, 64, digits.num_classes)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

for epoch in range(1, 101):
    model.train()
    optimizer.zero_grad()
    out = model(data.x, data.edge_index)
    F.cross_entropy(out[split.train], data.y[split.train]).backward()
    optimizer.step()

    model.eval()
    with torch.no_grad():
        out = model(data.x, data.edge_index)
    if epoch % 20 == 0:
        val, test = digits.evaluate(out, split.val), digits.evaluate(out, split.test)
        print(f"Epoch {epoch:03d}: validation {val:.1f} %, test {test:.1f} %")

weight, scale = model.conv1.lin.ternary()
print(f"Weights of the first layer: {sorted(set(weight.flatten().tolist()))} times {scale:.4f}")
