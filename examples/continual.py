"""16-to-1.58-bit training: full precision first, then ternary, with the strength phased in.

python examples/continual.py
"""

import torch
import torch.nn.functional as F

from bitgnn import StrengthSchedule, set_strength, task
from bitgnn.nn import BitGCN

EPOCHS = 150

torch.manual_seed(0)
digits = task("Digits")  # Needs no download; task("Cora") works the same.
data, split = digits.data, digits.split(seed=0)

# Full precision for a third of the epochs, then a linear ramp, ternary for the last third.
schedule = StrengthSchedule("linear", start=1 / 3, end=2 / 3)

model = BitGCN(digits.num_features, 64, 2, digits.num_classes, dropout=0.5, cached=True)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)  # Its state lives through the switch.

for epoch in range(1, EPOCHS + 1):
    strength = schedule(epoch / EPOCHS)
    set_strength(model, strength)

    model.train()
    optimizer.zero_grad()
    out = model(data.x, data.edge_index)
    loss = F.cross_entropy(out[split.train], data.y[split.train])
    loss.backward()
    optimizer.step()

    if epoch % 25 == 0:
        model.eval()
        with torch.no_grad():
            out = model(data.x, data.edge_index)
        val, test = digits.evaluate(out, split.val), digits.evaluate(out, split.test)
        print(
            f"Epoch {epoch:03d}: strength {strength:.2f}, loss {loss:.3f}, "
            f"validation {val:.1f} %, test {test:.1f} %"
        )
