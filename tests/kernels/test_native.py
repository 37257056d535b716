import shutil

import pytest
import torch

from bitgnn.kernels import graph_attention, native, quantize_rows
from bitgnn.quant import QuantConfig

built = pytest.mark.skipif(native._native is None, reason="There are no native kernels")


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no compiler")
def test_kernels_are_built_where_there_is_a_compiler():
    assert native._native is not None, "install bitgnn again: pip install -e ."


def philox(counter, key):
    """Philox4x32-10, as Salmon et al. (2011) write it."""
    words, key = [counter % 2**32, counter >> 32, 0, 0], [key % 2**32, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [
            (b >> 32) ^ words[1] ^ key[0],
            b % 2**32,
            (a >> 32) ^ words[3] ^ key[1],
            a % 2**32,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return words


def test_the_oracle_gives_the_published_numbers():
    # The first of the known answers that the authors ship (Random123, kat_vectors).
    assert philox(0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@built
@pytest.mark.parametrize("seed", [0, 7, 2**63 - 2])
@pytest.mark.parametrize("size", [0, 1, 5, 256, 259])
def test_uniform_equals_the_oracle(size, seed):
    words = [word for counter in range(size // 4 + 1) for word in philox(counter, seed)]
    expected = torch.tensor([(word >> 8) / 2**24 for word in words[:size]])
    assert torch.equal(native.uniform((size,), seed), expected)


@built
def test_uniform_is_uniform():
    x = native.uniform((400, 1000), 12345)
    assert x.min() >= 0.0 and x.max() < 1.0
    counts = torch.histc(x, 100, 0, 1)
    assert float(((counts - 4000) ** 2 / 4000).sum()) < 150  # chi-square of 99: p = 0.0007
    assert abs(float(torch.corrcoef(x[:2])[0, 1])) < 0.13  # of 1000 pairs: 4 deviations


@built
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_takes_the_noise_of_uniform(dtype):
    x = torch.randn(300, 7, dtype=dtype)
    keep = native.uniform((300, 7), 3) >= 0.3
    torch.testing.assert_close(native.dropout(x, 0.3, 3), x * keep / 0.7)


def numbers():
    """What each kernel gives, for inputs that are worth several threads."""
    torch.manual_seed(12345)
    adj_t = (torch.rand(300, 200) < 0.1).float().to_sparse_csr()
    operands = [torch.randn(200, 4, 8), torch.randn(200, 4), torch.randn(300, 4)]
    operands = [each.requires_grad_() for each in operands]
    out = graph_attention(adj_t, *operands, p=0.5, training=True)
    grads = torch.autograd.grad(out.square().sum(), operands)
    rows = quantize_rows(torch.randn(500, 30), QuantConfig())
    noise = native.uniform((100_000,), 5), native.dropout(torch.ones(100_000), 0.5, 5)
    return [out.detach(), *grads, *rows, *noise]


@built
def test_threads_change_no_number(by_threads):
    found = by_threads(numbers)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@built
@pytest.mark.parametrize("isa", ["portable", "avx2", "neon"])
def test_other_processors_give_the_same_numbers(isa, on_processor):
    there = on_processor(isa, __file__)
    *floats, x_q, scale, noise, dropped = numbers()
    *others, other_q, other_scale, other_noise, other_dropped = there
    for a, b in zip(others, floats, strict=True):
        torch.testing.assert_close(a, b)  # sums in another order
    assert torch.equal(x_q, other_q) and torch.equal(scale, other_scale)
    assert torch.equal(noise, other_noise) and torch.equal(dropped, other_dropped)


def test_status(monkeypatch):
    monkeypatch.setattr(native, "_native", None)
    assert native.status().startswith("none: reference path in use (install")
    assert not native.enabled()


@built
def test_the_environment_turns_kernels_off(monkeypatch):
    monkeypatch.delenv("BITGNN_NATIVE", raising=False)
    x = torch.ones(3)
    assert native.applies(x) and native.status() == native._native.isa
    monkeypatch.setenv("BITGNN_NATIVE", "0")
    assert not native.applies(x)
    assert native.status() == "none: reference path in use (turned off by BITGNN_NATIVE=0)"


@built
@pytest.mark.parametrize(
    "tensors",
    [
        (torch.ones(2, dtype=torch.float16),),
        (torch.ones(2, dtype=torch.int64),),
        (torch.eye(2).to_sparse_csr(),),
        (torch.ones(2, device="meta"),),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
    ],
)
def test_what_native_kernels_do_not_take(tensors):
    assert not native.applies(*tensors)


@built
def test_vmap_takes_torchs_way():
    out = torch.func.vmap(lambda x: quantize_rows(x, QuantConfig())[0])(torch.randn(3, 2, 5))
    assert out.shape == (3, 2, 5)
