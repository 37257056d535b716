import pytest
import torch
import torch.nn.functional as F

from bitgnn.kernels import graph_attention, native, native_attention

built = pytest.mark.skipif(native._native is None, reason="There are no native kernels")


@built
def test_many_heads_take_torchs_way():
    heads = native_attention.MOST_HEADS + 1
    x, score = torch.randn(3, heads, 1), torch.randn(3, heads)
    out = graph_attention(torch.eye(3).to_sparse_csr(), x, score, score)
    torch.testing.assert_close(out, x)


@built
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 32, 64])
@pytest.mark.parametrize("heads", [1, 8])
def test_attention_of_all_channels_equals_that_of_torch(heads, channels, monkeypatch):
    torch.manual_seed(12345)
    adj_t = (torch.rand(40, 30) < 0.2).float().to_sparse_csr()
    operands = [torch.randn(30, heads, channels), torch.randn(30, heads), torch.randn(40, heads)]
    found = []
    for on in ("1", "0"):
        monkeypatch.setenv("BITGNN_NATIVE", on)
        inputs = [each.clone().requires_grad_() for each in operands]
        out = graph_attention(adj_t, *inputs)
        found.append([out, *torch.autograd.grad(F.silu(out).sum(), inputs)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
