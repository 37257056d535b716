import gc

import pytest
import torch

from bitgnn.packed import outputs
from bitgnn.packed.outputs import Outputs

SIZE = (300, 1000)  # More than LARGE.


def test_memory_is_used_again_when_nobody_has_it():
    pool = Outputs()
    first = pool.empty(*SIZE)
    assert first.shape == SIZE and first.dtype == torch.float32
    place = first.data_ptr()
    second = pool.empty(*SIZE)
    assert second.data_ptr() != place
    del first
    gc.collect()
    assert pool.empty(*SIZE).data_ptr() == place


@pytest.mark.parametrize("share", ["view", "detach", "numpy"])
def test_what_shares_the_storage_keeps_it(share):
    pool = Outputs()
    out = pool.empty(*SIZE).fill_(1.0)
    kept = {"view": out.t, "detach": out.detach, "numpy": out.numpy}[share]()
    del out
    gc.collect()
    pool.empty(*SIZE).fill_(2.0)
    assert (kept == 1.0).all()


def test_other_sizes():
    pool = Outputs()
    place = pool.empty(*SIZE).data_ptr()
    smaller = pool.empty(299, 1000)
    assert smaller.shape == (299, 1000) and smaller.data_ptr() == place
    del smaller
    assert pool.empty(600, 1000).numel() == 600_000  # What is too small is given up,
    assert pool.empty(*SIZE).untyped_storage().nbytes() <= 4 * 300_000
    assert pool.empty(30, 1).numel() == 30


def test_memory_of_a_much_larger_output_is_not_kept_for_a_small_one():
    pool = Outputs()
    large = pool.empty(3000, 1000)
    del large
    out = pool.empty(*SIZE)
    assert not pool._free
    assert out.untyped_storage().nbytes() == 4 * out.numel()


def test_small_outputs_are_torchs_own(monkeypatch):
    pool = Outputs()
    pool.empty(30, 2)
    assert not pool._free
    monkeypatch.setattr(outputs, "LARGE", 0)
    pool.empty(30, 2)
    assert pool._free


def test_memory_of_inference_mode_serves_outside_of_it():
    pool = Outputs()
    with torch.inference_mode():
        assert pool.empty(*SIZE).is_inference()
    out = pool.empty(*SIZE)
    assert not out.is_inference()
    weight = torch.ones((), requires_grad=True)
    (out.zero_() * weight).sum().backward()
    assert weight.grad == 0
