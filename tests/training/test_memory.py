import pytest
import torch

from bitgnn.training import Recipe, memory
from bitgnn.training.memory import check_memory, explained, physical_memory

WIDE = Recipe(hidden_channels=1000, num_layers=4)


@pytest.mark.parametrize(
    ("name", "recipe", "ternary", "needed"),
    [
        # 16 features, 60 nodes; 16 bytes a weight, 4 a number of a hidden layer.
        ("gcn", WIDE, True, 16 * (16_000 + 2_000_000) + 4 * 60 * 3_000),
        ("gcn", WIDE.replace(width=2), True, 16 * (32_000 + 8_000_000) + 4 * 60 * 6_000),
        ("gcn", WIDE.replace(width=2), False, 16 * (16_000 + 2_000_000) + 4 * 60 * 3_000),
        ("gat", WIDE.replace(heads=2), True, 16 * (32_000 + 8_000_000) + 4 * 60 * 6_000),
        ("mlp", WIDE.replace(batch="random"), True, 16 * (16_000 + 2_000_000)),
        ("mlp", WIDE.replace(num_layers=1), True, 0),
        ("sgc", WIDE, True, 0),
    ],
)
def test_a_run_that_cannot_fit(name, recipe, ternary, needed, tiny, monkeypatch):
    monkeypatch.setattr(memory, "physical_memory", lambda: needed)
    check_memory(name, tiny, recipe, ternary)
    monkeypatch.setattr(memory, "physical_memory", lambda: needed - 1)
    if needed:
        with pytest.raises(ValueError, match=r"needs at least .* GiB .* lower hidden_channels"):
            check_memory(name, tiny, recipe, ternary)
    monkeypatch.setattr(memory, "physical_memory", lambda: None)
    check_memory(name, tiny, recipe, ternary)


def test_exhausted_memory_is_one_line():
    with (
        pytest.raises(
            ValueError, match=r"^Memory is exhausted \(DefaultCPUAll.*\): lower"
        ) as error,
        explained(),
    ):
        torch.empty(1 << 60)
    assert "\n" not in str(error.value)
    for raised in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory\nand more")):
        with pytest.raises(ValueError, match=r"^Memory is exhausted \(\w.*\): lower"), explained():
            raise raised


def test_other_errors_stay():
    with pytest.raises(RuntimeError, match="shape"), explained():
        raise RuntimeError("shape")


def test_physical_memory():
    assert physical_memory() > 1 << 28
