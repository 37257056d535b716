import pytest

from bitgnn.training.decay import decayed


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (None, [1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.75, 0.5, 0.0]),
        ("cosine", [1.0, (1 + 0.5**0.5) / 2, 0.5, 0.0]),
    ],
)
def test_what_is_left(kind, left):
    assert [decayed(kind, progress) for progress in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(left)
