import pytest
import torch

from bitgnn.kernels import Dropout, dropout

pytestmark = pytest.mark.usefixtures("form")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale(p):
    torch.manual_seed(12345)
    x = torch.rand(100_000) + 1.0
    out = dropout(x, p)
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.01)
    torch.testing.assert_close(out[kept], x[kept] / (1 - p))


def test_values_are_dropped_one_by_one():
    torch.manual_seed(12345)
    first, second = (dropout(torch.ones(100, 1000), 0.5) != 0 for _ in range(2))
    for agree in (first == second, first[1:] == first[:-1], first[:, 1:] == first[:, :-1]):
        assert agree.float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_gradient_has_the_same_mask():
    x = torch.randn(1000, dtype=torch.float64, requires_grad=True)
    out = dropout(x, 0.3)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x, out)


def test_same_seed_same_mask():
    outs = []
    for _ in range(2):
        torch.manual_seed(3)
        outs.append(dropout(torch.ones(50), 0.5))
    assert torch.equal(*outs)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_nothing_is_dropped(p, training):
    x = torch.randn(10)
    state = torch.get_rng_state()
    assert torch.equal(dropout(x, p, training), x)
    assert torch.equal(torch.get_rng_state(), state)


def test_everything_is_dropped():
    assert torch.equal(dropout(torch.ones(10), 1.0), torch.zeros(10))


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_probability_is_checked(p):
    with pytest.raises(ValueError, match=f"between 0 and 1, but got {p}"):
        dropout(torch.ones(2), p)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype):
    assert dropout(torch.ones(4, dtype=dtype), 0.5).dtype == dtype


def test_module():
    module = Dropout(0.5)
    assert isinstance(module, torch.nn.Dropout) and str(module) == "Dropout(p=0.5, inplace=False)"
    x = torch.ones(1000)
    assert 0 < int((module(x) == 0).sum()) < 1000
    assert torch.equal(module.eval()(x), x)
