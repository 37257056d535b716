"""Means, standard deviations and paired differences over seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit


def summary(values: Sequence[float]) -> tuple[float | None, float | None]:
    r"""Returns the mean and the sample standard deviation (:math:`n - 1` in the denominator).

    What the values cannot tell is :obj:`None`: the mean of no value, the deviation of fewer
    than two.
    """
    sample = _finite(values)
    mean = float(sample.mean()) if len(sample) > 0 else None
    sd = float(sample.std(ddof=1)) if len(sample) > 1 else None
    return mean, sd


def pair_by_seed(
    a: Mapping[int, float | None], b: Mapping[int, float | None]
) -> tuple[list[float], list[float]]:
    r"""Pairs the values of two sides by their seed, in ascending order of the seeds.

    Seeds that one side lacks, or did not finish (:obj:`None`), are left out on both.
    """
    pairs = [(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys())]
    finished = [(x, y) for x, y in pairs if x is not None and y is not None]
    return [x for x, _ in finished], [y for _, y in finished]


def paired_difference(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95
) -> tuple[float | None, float | None, float | None]:
    r"""Returns the mean of :math:`d_i = a_i - b_i` and its two-sided confidence interval

    .. math::
        \bar{d} \pm t_{n-1,\,(1 + c) / 2} \, \frac{s_d}{\sqrt{n}}.

    Args:
        a (Sequence[float]): The values of one side, one a seed.
        b (Sequence[float]): The values of the other side, in the same order of seeds.
        confidence (float): The coverage :math:`c` of the interval. (default: :obj:`0.95`)

    Returns:
        :obj:`(mean, low, high)`: without a pair all are :obj:`None`, with one pair the bounds.

    Raises:
        ValueError: If the sides differ in length, a value is not finite, or :obj:`confidence` is
            not between 0 and 1.
    """
    if len(a) != len(b):
        raise ValueError(f"Paired sides need the same length (got {len(a)} and {len(b)} values)")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"'confidence' must lie strictly between 0 and 1 (got {confidence})")
    difference = _finite(a) - _finite(b)
    mean, sd = summary(difference.tolist())
    if mean is None or sd is None:
        return mean, None, None
    n = len(difference)
    margin = float(stdtrit(n - 1, (1.0 + confidence) / 2.0)) * sd / n**0.5
    return mean, mean - margin, mean + margin


def _finite(values: Sequence[float]) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    if not np.isfinite(sample).all():
        raise ValueError(f"Values must be finite (got {list(values)}); leave diverged seeds out")
    return sample
