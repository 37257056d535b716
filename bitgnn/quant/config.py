import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeAlias

WEIGHT_BITS = (1.58, 2, 3, 4, 5, 6, 7, 8)
WEIGHT_MEASURES = ("absmean", "absmedian", "absmax")
GRANULARITIES = ("tensor", "channel")
ROUNDINGS = ("nearest", "stochastic")
ACTIVATION_BITS = tuple(range(2, 9))


@dataclass(frozen=True)
class QuantConfig:
    r"""How a layer quantizes its weights and its activations.

    The default is the preset :obj:`"b158"`, the mathematics of `"The Era of
    1-bit LLMs: All Large Language Models are in 1.58 Bits"
    <https://arxiv.org/abs/2402.17764>`_ with the median as an option, after
    `"BitNet b1.58 Reloaded" <https://arxiv.org/abs/2407.09527>`_:

    .. math::
        \mathbf{W}_q &= \mathrm{clamp}(\mathrm{round}(\mathbf{W} / s_w), -1, 1),
        \quad s_w = \mathrm{measure}(|\mathbf{W}|)

        \mathbf{x}_q &= \mathrm{round}(\mathbf{x} / s_x),
        \quad s_x = \max |\mathbf{x}| / 127

        \mathbf{y} &= (\mathbf{x}_q \mathbf{W}_q^{\top}) \, s_x \, s_w
        + \mathbf{b}

    with one :math:`s_x` a row. Both scales are clamped at :obj:`eps` and
    rounding is half-to-even.

    >>> QuantConfig(weight_measure="absmedian", granularity="channel").to_dict()["weight_bits"]
    1.58

    Args:
        weight_bits (float, optional): :obj:`1.58` for ternary weights, 2 to 8
            for :math:`k`-bit integers, :obj:`None` for 32-bit weights.
            (default: :obj:`1.58`)
        weight_measure (str, optional): What the weight scale is measured by:
            :obj:`"absmean"`, :obj:`"absmedian"` (the lower of two middles) or
            :obj:`"absmax"`. (default: :obj:`"absmean"`)
        granularity (str, optional): One weight scale per :obj:`"tensor"` or
            per output :obj:`"channel"`. (default: :obj:`"tensor"`)
        activation_bits (int, optional): Bits of an activation, 2 to 8, or
            :obj:`None` for 32-bit activations. (default: :obj:`8`)
        layer_norm (bool, optional): If set to :obj:`True`, applies a
            parameter-free layer normalization to the rows before they are
            quantized. (default: :obj:`False`)
        rounding (str, optional): :obj:`"nearest"`, or :obj:`"stochastic"` to
            round weights up or down at random in training, without bias.
            (default: :obj:`"nearest"`)
        full_range (bool, optional): If set to :obj:`True`, activations use
            all :math:`2^b` codes: :math:`s_x = \max|\mathbf{x}| / 128`,
            clamped to :math:`[-128, 127]`. (default: :obj:`False`)
        rescale_bias (bool, optional): If set to :obj:`True`, the bias is added
            before the rescale, :math:`(\mathbf{x}_q \mathbf{W}_q^{\top} +
            \mathbf{b}) \, s_x \, s_w`. (default: :obj:`False`)
        eps (float, optional): The smallest scale. (default: :obj:`1e-8`)

    Raises:
        ValueError: If a field has a value that is not allowed.
    """

    weight_bits: float | None = 1.58
    weight_measure: Literal["absmean", "absmedian", "absmax"] = "absmean"
    granularity: Literal["tensor", "channel"] = "tensor"
    activation_bits: int | None = 8
    layer_norm: bool = False
    rounding: Literal["nearest", "stochastic"] = "nearest"
    full_range: bool = False
    rescale_bias: bool = False
    eps: float = 1e-8

    def __post_init__(self) -> None:
        self._check("weight_bits", (*WEIGHT_BITS, None))
        self._check("weight_measure", WEIGHT_MEASURES)
        self._check("granularity", GRANULARITIES)
        self._check("activation_bits", (*ACTIVATION_BITS, None))
        self._check("rounding", ROUNDINGS)
        for name in ("layer_norm", "full_range", "rescale_bias"):
            self._check(name, (True, False))
        # A scale near the smallest float has few digits left: ratios would leave the range.
        if not isinstance(self.eps, (int, float)) or not 1e-30 <= self.eps < 1:
            raise ValueError(f"'eps' must lie between 1e-30 and 1 (got {self.eps!r})")

    def _check(self, name: str, allowed: tuple[Any, ...]) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) != isinstance(allowed[0], bool) or value not in allowed:
            choices = ", ".join(repr(choice) for choice in allowed)
            raise ValueError(f"'{name}' must be one of {choices} (got {value!r})")
        # Of equal values the one of the table: bits of 8.0 would give ranges that are no integers.
        object.__setattr__(self, name, allowed[allowed.index(value)])

    @property
    def ternary(self) -> bool:
        """Whether weights are in {-1, 0, 1}."""
        return self.weight_bits == 1.58

    @property
    def weight_range(self) -> tuple[int, int]:
        """The smallest and the largest integer weight."""
        if self.weight_bits is None:
            raise ValueError("32-bit weights ('weight_bits=None') have no integer range")
        if self.ternary:
            return -1, 1
        half = 2 ** (int(self.weight_bits) - 1)
        return -half, half - 1

    @property
    def activation_range(self) -> tuple[int, int]:
        """The smallest and the largest integer activation."""
        if self.activation_bits is None:
            raise ValueError("32-bit activations ('activation_bits=None') have no integer range")
        half = 2 ** (self.activation_bits - 1)
        return (-half, half - 1) if self.full_range else (1 - half, half - 1)

    def replace(self, **changes: Any) -> "QuantConfig":
        """Returns a copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as plain values, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "QuantConfig":
        """The inverse of :meth:`to_dict`; raises on a field it does not know."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"'QuantConfig' has no field {unknown[0]!r}; it has {known}")
        return cls(**values)

    def to_json(self) -> str:
        """Returns the configuration as a JSON object."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "QuantConfig":
        """The inverse of :meth:`to_json`."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(
                f"Expected a JSON object with the fields of 'QuantConfig' (got {text})"
            )
        return cls.from_dict(values)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "QuantConfig":
        """Returns a named preset, with some fields changed.

        Args:
            name (str): :obj:`"b158"` (the default mathematics) or
                :obj:`"reloaded"` (the exact layer of arXiv 2407.09527 and
                2411.05882, only to reproduce their tables).
            **changes (optional): Fields that differ from the preset.
        """
        if name not in PRESETS:
            raise ValueError(f"No preset is called {name!r}; there are {sorted(PRESETS)}")
        return PRESETS[name].replace(**changes)


Quant: TypeAlias = QuantConfig | str | None

PRESETS = {
    "b158": QuantConfig(),
    "reloaded": QuantConfig(layer_norm=True, full_range=True, rescale_bias=True, eps=1e-5),
}


def resolve_quant(quant: Quant) -> QuantConfig | None:
    """Turns what a user passes as :obj:`quant=` into a configuration.

    Args:
        quant (QuantConfig, str or None): A configuration, the name of a
            preset, or :obj:`None` for full precision.

    Raises:
        TypeError: If :obj:`quant` is none of these.
        ValueError: If no preset has that name.
    """
    if quant is None or isinstance(quant, QuantConfig):
        return quant
    if isinstance(quant, str):
        return QuantConfig.preset(quant)
    raise TypeError(
        f"'quant' must be a QuantConfig, the name of a preset {sorted(PRESETS)} or None for "
        f"full precision (got {quant!r})"
    )
