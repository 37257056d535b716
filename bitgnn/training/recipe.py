import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from bitgnn.quant import StrengthSchedule

ACTIVATIONS = ("relu", "elu", "gelu", "leaky_relu", "silu", "tanh")
NORMS = ("batch_norm", "layer_norm", None)
FEATURE_NORMS = ("row", "none")
OPTIMIZERS = ("adam", "adamw")
SELECTIONS = ("best_val", "last")


@dataclass(frozen=True)
class Recipe:
    r"""Every hyper-parameter of a training run, the same for both sides of a
    comparison.

    The one thing that differs is what cannot be the same: a ternary layer
    trains *latent* weights, of which only sign and relative size count.
    Weight decay pulls all of them into the rounding threshold at once and
    destroys ternary graph networks, so that latent weights get none unless
    :obj:`latent_weight_decay` says otherwise. Biases, attention vectors and
    the whole 32-bit side keep :obj:`weight_decay`.

    >>> Recipe(lr=0.005).replace(hidden_channels=128).lr
    0.005

    Args:
        hidden_channels (int, optional): Width of a hidden layer, all heads
            together. (default: :obj:`64`)
        num_layers (int, optional): Number of layers. (default: :obj:`2`)
        dropout (float, optional): Dropout between layers.
            (default: :obj:`0.5`)
        input_dropout (float, optional): Dropout of the input features.
            (default: :obj:`0.0`)
        heads (int, optional): Attention heads of GAT. (default: :obj:`8`)
        attention_dropout (float, optional): Dropout of GAT's attention
            coefficients. (default: :obj:`0.0`)
        K (int, optional): Propagation steps of SGC. (default: :obj:`2`)
        act (str, optional): The activation function. (default: :obj:`"relu"`)
        norm (str, optional): The normalization between layers,
            :obj:`"batch_norm"`, :obj:`"layer_norm"` or :obj:`None`.
            (default: :obj:`None`)
        feature_norm (str, optional): :obj:`"row"` normalizes features as
            :class:`torch_geometric.transforms.NormalizeFeatures` does,
            :obj:`"none"` leaves them. (default: :obj:`"row"`)
        optimizer (str, optional): :obj:`"adam"` or :obj:`"adamw"`.
            (default: :obj:`"adam"`)
        lr (float, optional): The learning rate. (default: :obj:`0.01`)
        weight_decay (float, optional): The weight decay.
            (default: :obj:`5e-4`)
        latent_lr (float, optional): The learning rate of latent weights;
            :obj:`None` is :obj:`lr`. (default: :obj:`None`)
        latent_weight_decay (float, optional): The weight decay of latent
            weights; :obj:`None` is :obj:`weight_decay`. (default: :obj:`0.0`)
        epochs (int, optional): Full-batch epochs at most.
            (default: :obj:`200`)
        patience (int, optional): Stop after so many epochs without a better
            validation metric; :obj:`None` never stops early.
            (default: :obj:`None`)
        select (str, optional): :obj:`"best_val"` reports the epoch with the
            best validation metric, :obj:`"last"` the last one.
            (default: :obj:`"best_val"`)
        schedule (StrengthSchedule, optional): The strength of quantization
            over the epochs. (default: fully quantized from the start)

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a field has a value that is not allowed.
    """

    hidden_channels: int = 64
    num_layers: int = 2
    dropout: float = 0.5
    input_dropout: float = 0.0
    heads: int = 8
    attention_dropout: float = 0.0
    K: int = 2
    act: str = "relu"
    norm: str | None = None
    feature_norm: Literal["row", "none"] = "row"
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = 0.01
    weight_decay: float = 5e-4
    latent_lr: float | None = None
    latent_weight_decay: float | None = 0.0
    epochs: int = 200
    patience: int | None = None
    select: Literal["best_val", "last"] = "best_val"
    schedule: StrengthSchedule = field(default_factory=StrengthSchedule)

    def __post_init__(self) -> None:
        for name in ("hidden_channels", "num_layers", "heads", "K", "epochs"):
            self._check_count(name)
        if self.patience is not None:
            self._check_count("patience")
            if self.select == "last":
                raise ValueError(
                    "'patience' waits for a better validation metric, which select='last' ignores: "
                    "use select='best_val' or patience=None"
                )
        for name in ("dropout", "input_dropout", "attention_dropout"):
            self._check_number(name, "in [0, 1)", lambda value: 0 <= value < 1)
        self._check_number("lr", "above 0", lambda value: value > 0)
        self._check_number("weight_decay", "at least 0", lambda value: value >= 0)
        if self.latent_lr is not None:
            self._check_number("latent_lr", "above 0", lambda value: value > 0)
        if self.latent_weight_decay is not None:
            self._check_number("latent_weight_decay", "at least 0", lambda value: value >= 0)
        self._check_choice("act", ACTIVATIONS)
        self._check_choice("norm", NORMS)
        self._check_choice("feature_norm", FEATURE_NORMS)
        self._check_choice("optimizer", OPTIMIZERS)
        self._check_choice("select", SELECTIONS)
        if not isinstance(self.schedule, StrengthSchedule):
            raise TypeError(f"'schedule' must be a StrengthSchedule (got {self.schedule!r})")

    def _check_count(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"'{name}' must be an integer (got {value!r})")
        if value < 1:
            raise ValueError(f"'{name}' must be at least 1 (got {value})")

    def _check_number(self, name: str, allowed: str, test: Any) -> None:
        value = getattr(self, name)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"'{name}' must be a number (got {value!r})")
        if not math.isfinite(value) or not test(value):
            raise ValueError(f"'{name}' must be {allowed} (got {value})")
        # 1 and 1.0 are one recipe and must have one key in the result store.
        object.__setattr__(self, name, float(value))

    def _check_choice(self, name: str, allowed: tuple[str | None, ...]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            choices = ", ".join(repr(choice) for choice in allowed)
            raise ValueError(f"'{name}' must be one of {choices} (got {value!r})")

    def replace(self, **changes: Any) -> "Recipe":
        """Returns a copy with some fields changed; raises on a field it does not have."""
        self._check_names(changes)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as plain values, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """The inverse of :meth:`to_dict`; raises on a field it does not have."""
        cls._check_names(values)
        values = dict(values)
        if isinstance(values.get("schedule"), dict):
            values["schedule"] = StrengthSchedule.from_dict(values["schedule"])
        return cls(**values)

    @classmethod
    def _check_names(cls, values: dict[str, Any]) -> None:
        known = [each.name for each in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"A recipe has no field {unknown[0]!r}; it has {', '.join(known)}")
