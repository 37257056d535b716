import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.quant import straight_through


def test_straight_through_returns_the_target_to_the_last_bit():
    value = torch.randn(3, 4, requires_grad=True)
    target = torch.randn(3, 4)
    out = straight_through(value, target)
    assert torch.equal(out, target)
    assert out.requires_grad and not target.requires_grad


def test_straight_through_with_strength_zero_returns_the_value():
    value, target = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    assert torch.equal(straight_through(value, target, 0.0), value)


@given(st.floats(0.0, 1.0))
def test_straight_through_blends(strength):
    value = torch.linspace(-2, 3, 7, dtype=torch.float64, requires_grad=True)
    target = value.detach().round()
    expected = value + strength * (target - value).detach()
    out = straight_through(value, target, strength)
    assert torch.allclose(out, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_straight_through_passes_the_gradient_unchanged(strength):
    value = torch.randn(3, 4, requires_grad=True)
    target = torch.randn(3, 4, requires_grad=True)
    grad = torch.randn(3, 4)
    straight_through(value, target, strength).backward(grad)
    assert torch.equal(value.grad, grad)
    assert target.grad is None
