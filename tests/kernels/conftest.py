import pytest
import torch
from hypothesis import strategies as st

from bitgnn.kernels import native


@st.composite
def csr(draw, square=False, dtype=None):
    """Small CSR matrices: any shape, rows and columns without a value, values of any sign."""
    rows = draw(st.integers(0, 5))
    columns = rows if square else draw(st.integers(0, 5))
    dtype = dtype or draw(st.sampled_from([torch.float32, torch.float64]))
    density = draw(st.sampled_from([0.0, 0.3, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    dense = torch.randn(rows, columns, generator=generator, dtype=dtype)
    keep = torch.rand(rows, columns, generator=generator) < density
    return (dense * keep).to_sparse_csr()


@pytest.fixture
def matrix():
    return torch.tensor([[1.0, 0, 2], [0, 0, 0], [0, -3, 0], [4, 5, 6]]).to_sparse_csr()


@pytest.fixture(scope="module", params=["native", "reference"])
def form(request):
    """Runs the tests of a module with native kernels and without."""
    if request.param == "native" and not native.enabled():
        pytest.skip("There are no native kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITGNN_NATIVE", "1" if request.param == "native" else "0")
        yield request.param
