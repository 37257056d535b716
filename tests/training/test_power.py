import pytest
import torch
from torch import nn
from torch.nn import Parameter
from torch.optim import SGD, Adam

from bitgnn.training.power import PowerPropagation


def parameter(*shape):
    torch.manual_seed(12)
    return Parameter(torch.randn(*shape))


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_steps_are_those_of_the_formula(power, optimizer):
    weight, target = parameter(5, 7), torch.randn(5, 7)
    root = Parameter(weight.detach().clone())
    factor = (root.square().mean() / root.abs().pow(2 * power).mean()).sqrt().detach()
    powers, own = PowerPropagation([weight], power), optimizer([weight], lr=0.1)
    oracle = optimizer([root], lr=0.1)
    for _ in range(5):
        for each in (own, oracle):
            each.zero_grad()
        (weight - target).square().mean().backward()
        powers.step(own)
        (factor * root * root.abs() ** (power - 1) - target).square().mean().backward()
        oracle.step()
    torch.testing.assert_close(powers.roots[0], root.detach())
    torch.testing.assert_close(weight, factor * root * root.abs() ** (power - 1))


def test_size_and_signs_are_kept():
    weight = parameter(40, 30)
    before = weight.detach().clone()
    PowerPropagation([weight], 2.0)
    torch.testing.assert_close(weight.square().mean(), before.square().mean())
    assert torch.equal(weight.sign(), before.sign())
    assert (weight.abs() < weight.abs().mean() / 2).float().mean() > 0.4  # 0.31 of the normal ones


def test_power_of_one_is_plain_training():
    weight, other = parameter(3, 4), parameter(3, 4)
    powers, own, plain = (
        PowerPropagation([weight], 1.0),
        SGD([weight], lr=0.1),
        SGD([other], lr=0.1),
    )
    for each in (weight, other):
        each.pow(3).sum().backward()
    powers.step(own)
    plain.step()
    assert torch.equal(weight, other)


def test_others_take_their_steps_and_what_has_no_gradient_stays():
    weight, still, bias = parameter(3, 4), parameter(2, 2), parameter(3)
    powers = PowerPropagation([weight, still], 2.0)
    before = [each.detach().clone() for each in (weight, still, bias)]
    (nn.functional.linear(torch.ones(1, 4), weight, bias)).sum().backward()
    powers.step(SGD([weight, still, bias], lr=0.1))
    assert not torch.equal(weight, before[0])
    torch.testing.assert_close(still, before[1])
    torch.testing.assert_close(bias, before[2] - 0.1)


@pytest.mark.parametrize("shape", [(0, 4), (2, 3)])
def test_weights_that_are_zero_or_none(shape):
    weight = Parameter(torch.zeros(shape))
    powers = PowerPropagation([weight], 2.0)
    weight.sum().backward()
    powers.step(SGD([weight], lr=0.1))
    assert weight.shape == shape and torch.equal(weight, torch.zeros(shape))
