import pytest
import torch

from bitgnn.kernels import native, native_products, quantize_rows
from bitgnn.quant import QuantConfig

pytestmark = pytest.mark.skipif(not native.enabled(), reason="There are no native kernels")


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    yield lambda: torch.set_default_dtype(torch.float64)
    torch.set_default_dtype(before)


def numbers(x, weight, ternary):
    yield native_products.product(x, weight)
    yield native_products.ternary_product(x, ternary, torch.tensor(0.5), -127.0, 127.0, 1e-8)
    yield native_products.integer_product((10 * x).round(), ternary)
    yield native_products.weight_gradient(x, x @ weight.t())
    yield native.uniform((50, 3), seed=12)
    yield from quantize_rows(x, QuantConfig())


def test_native_kernels_do_not_depend_on_the_default_dtype(double):
    torch.manual_seed(12)
    x, weight = torch.randn(40, 33), torch.randn(20, 33)
    ternary = weight.round().clamp(-1, 1)
    expected = list(numbers(x, weight, ternary))
    double()
    for found, right in zip(numbers(x, weight, ternary), expected, strict=True):
        assert found.dtype == torch.float32 and torch.equal(found, right)
