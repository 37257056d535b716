from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MAX_LISTED = 3

Kind = Literal["nonfinite", "scale", "small", "constant", "weights", "32-bit"]


@dataclass(frozen=True)
class Finding:
    r"""What :func:`bitgnn.check` found.

    Args:
        kind (str): :obj:`"nonfinite"` (NaN or infinity), :obj:`"scale"` (columns that take up the
            scale of rows), :obj:`"small"` (rows below the smallest scale), :obj:`"constant"`
            (columns that are constant), :obj:`"weights"` (a ternary weight that is almost all
            zeros) or :obj:`"32-bit"` (parameters that are not quantized).
        where (str): The attribute of the data or the name of the layer.
        message (str): What was found, and what helps.
    """

    kind: Kind
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


def listed(values: Sequence[object]) -> str:
    r"""Lists the first few values.

    >>> listed([3, 5]), listed(range(9))
    ('3, 5', '0, 1, 2 and 6 more')

    Args:
        values (list): The values.
    """
    shown = ", ".join(map(str, values[:MAX_LISTED]))
    more = len(values) - MAX_LISTED
    return f"{shown} and {more} more" if more > 0 else shown
