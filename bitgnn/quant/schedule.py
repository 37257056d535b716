import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

KINDS = ("constant", "step", "linear", "cosine")


@dataclass(frozen=True)
class StrengthSchedule:
    r"""The strength :math:`\lambda` of quantization over training, from full
    precision (0) to quantized (1), for 16-to-1.58-bit training as in
    `"Continual Quantization-Aware Pre-Training"
    <https://arxiv.org/abs/2502.11895>`_.

    With :math:`t = (p - a) / (b - a)` clamped to :math:`[0, 1]`, where
    :math:`p` is the share of training that is done:

    .. math::
        \lambda_{\text{constant}} = 1, \quad
        \lambda_{\text{step}} = [p \geq a], \quad
        \lambda_{\text{linear}} = t, \quad
        \lambda_{\text{cosine}} = (1 - \cos \pi t) / 2

    >>> StrengthSchedule("linear", start=0.0, end=0.5)(0.25)
    0.5

    Args:
        kind (str, optional): :obj:`"constant"`, :obj:`"step"`,
            :obj:`"linear"` or :obj:`"cosine"`. (default: :obj:`"constant"`)
        start (float, optional): The share of training :math:`a` after which
            the strength rises. (default: :obj:`0.0`)
        end (float, optional): The share of training :math:`b` from which on it
            is 1; not used by :obj:`"step"`. (default: :obj:`0.5`)

    Raises:
        ValueError: If :obj:`kind` is unknown, or not
            :math:`0 \leq a \leq b \leq 1`.
    """

    kind: Literal["constant", "step", "linear", "cosine"] = "constant"
    start: float = 0.0
    end: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"'kind' must be one of {KINDS} (got {self.kind!r})")
        end = 1.0 if self.kind == "step" else self.end
        if not 0.0 <= self.start <= end <= 1.0:
            raise ValueError(
                f"'start' and 'end' are shares of training, 0 <= start <= end <= 1 "
                f"(got start={self.start}, end={self.end})"
            )

    def __call__(self, progress: float) -> float:
        """Returns the strength at a progress between 0 and 1."""
        if self.kind == "constant":
            return 1.0
        if self.kind == "step" or self.start == self.end:
            return float(progress >= self.start)
        t = min(max((progress - self.start) / (self.end - self.start), 0.0), 1.0)
        return t if self.kind == "linear" else (1.0 - math.cos(math.pi * t)) / 2.0

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as plain values, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StrengthSchedule":
        """The inverse of :meth:`to_dict`."""
        return cls(**values)
