import math


def decayed(kind: str | None, progress: float) -> float:
    r"""Returns what is left of a quantity that falls to 0 over training.

    With :math:`p` the share of training that is done, :math:`1 - p` (linear),
    :math:`(1 + \cos \pi p) / 2` (cosine), or 1 if it does not fall.

    >>> decayed("linear", 0.25)
    0.75

    Args:
        kind (str, optional): :obj:`"linear"`, :obj:`"cosine"` or :obj:`None`.
        progress (float): The share :math:`p`, between 0 and 1.
    """
    if kind is None:
        return 1.0
    return 1.0 - progress if kind == "linear" else (1.0 + math.cos(math.pi * progress)) / 2.0
