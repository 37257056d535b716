import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from bitgnn.quant import StrengthSchedule

ACTIVATIONS = ("relu", "elu", "gelu", "leaky_relu", "silu", "tanh")
NORMS = ("batch_norm", "layer_norm", None)
FEATURE_NORMS = ("row", "l2", "none")
OPTIMIZERS = ("adam", "adamw")
DECAYS = ("linear", "cosine", None)
SELECTIONS = ("best_val", "last")
STARTS = ("scratch", "teacher")
KEPT = ("first", "last", None)
STANDARDIZED = ("graph", "node", None)
BATCHES = ("neighbor", "random", "saint", "cluster", None)

# The largest values. Nobody means more, and more would exhaust memory, or overflow float32, before
# it gave an answer: Adam divides the learning rate by as little as 0.001.
MAX_COUNTS = {
    "hidden_channels": 1_000_000,
    "num_layers": 1_000,
    "heads": 1_000,
    "K": 1_000,
    "epochs": 1_000_000,
    "width": 1_000,
    "batch_size": 1_000_000_000,
    "num_parts": 1_000_000_000,
    "patience": 1_000_000,
}
MAX_NUMBER = 1e30

# What only a student has, and what only a ternary layer has.
TEACHING = ("teacher", "teacher_weight", "teacher_decay", "temperature", "standardize", "start")
QUANTIZED = (
    "width",
    "keep",
    "schedule",
    "reset_optimizer",
    "latent_lr",
    "latent_weight_decay",
    "latent_optimizer",
    "latent_gain",
    "latent_power",
)

# Fields that are younger than the first published runs. A run that makes no use of them is recorded
# as it was then, and keeps its key.
YOUNGER = (
    "teacher_decay",
    "latent_power",
    "batch",
    "batch_size",
    "num_neighbors",
    "num_parts",
)


@dataclass(frozen=True)
class Recipe:
    r"""Every hyper-parameter of a training run, the same for both sides of a
    comparison.

    The one thing that differs is what cannot be the same: a ternary layer
    trains *latent* weights, of which only sign and relative size count.
    Weight decay pulls all of them into the rounding threshold at once and
    destroys ternary graph networks, so that latent weights get none unless
    :obj:`latent_weight_decay` says otherwise. Biases, attention vectors and
    the whole 32-bit side keep :obj:`weight_decay`. What more concerns ternary
    layers or a teacher has no part in a 32-bit run: see :meth:`plain`.

    With a teacher, a finished 32-bit run with logits
    :math:`\mathbf{z}^{\prime}`, the loss is that of `"Distilling the Knowledge
    in a Neural Network" <https://arxiv.org/abs/1503.02531>`_, over *all* nodes
    of the graph:

    .. math::
        \mathcal{L} = \mathrm{CE}(\mathbf{z}_{\text{train}}) + w d(p) T^2 \,
        \frac{1}{N} \sum_{i=1}^N \mathrm{KL} \left(
        \mathrm{softmax}(\mathbf{z}^{\prime}_i / T) \, \| \,
        \mathrm{softmax}(\mathbf{z}_i / T) \right)

    where :math:`d(p)` is what :obj:`teacher_decay` leaves of the teacher's
    weight when the share :math:`p` of the epochs is done, as in `"BAM!
    Born-Again Multi-Task Networks for Natural Language Understanding"
    <https://arxiv.org/abs/1907.04829>`_ (teacher annealing):
    :math:`1 - p` (linear), :math:`(1 + \cos \pi p) / 2` (cosine) or 1
    (:obj:`None`).

    With :obj:`standardize="graph"`, :math:`\mathbf{z}` and
    :math:`\mathbf{z}^{\prime}` are standardized before they are compared,

    .. math::
        \tilde{z}_{ic} = \frac{z_{ic} - \bar{z}_i}{\sigma}, \quad
        \sigma^2 = \frac{1}{NC} \sum_{i,c} (z_{ic} - \bar{z}_i)^2

    with the mean :math:`\bar{z}_i` over the :math:`C` classes: the student
    learns which node is how sure of which class, but not the scale of the
    logits. :obj:`"node"` has one :math:`\sigma_i` a node instead, as `"Logit
    Standardization in Knowledge Distillation"
    <https://arxiv.org/abs/2403.01427>`_ has. The student's :math:`\sigma`
    counts as at least 1, so that logits which begin near 0 grow.

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
            :class:`torch_geometric.transforms.NormalizeFeatures` does (rows sum
            to one), :obj:`"l2"` gives rows length one, :obj:`"none"` leaves
            them. (default: :obj:`"row"`)
        optimizer (str, optional): :obj:`"adam"` or :obj:`"adamw"`.
            (default: :obj:`"adam"`)
        lr (float, optional): The learning rate. (default: :obj:`0.01`)
        lr_decay (str, optional): How all learning rates fall to 0 over the
            epochs, :obj:`"linear"`, :obj:`"cosine"` or :obj:`None`.
            (default: :obj:`None`)
        weight_decay (float, optional): The weight decay.
            (default: :obj:`5e-4`)
        latent_lr (float, optional): The learning rate of latent weights;
            :obj:`None` is :obj:`lr`. (default: :obj:`None`)
        latent_weight_decay (float, optional): The weight decay of latent
            weights; :obj:`None` is :obj:`weight_decay`. (default: :obj:`0.0`)
        latent_optimizer (str, optional): The kind of weight decay of latent
            weights, that of :obj:`"adam"` or the decoupled one of
            :obj:`"adamw"`; :obj:`None` is :obj:`optimizer`.
            (default: :obj:`None`)
        latent_gain (float, optional): What initial latent weights are
            multiplied by. (default: :obj:`1.0`)
        latent_power (float, optional): The power of which latent weights are
            trained (:class:`~bitgnn.training.power.PowerPropagation`): the
            higher it is, the more of them are zero.
            (default: :obj:`1.0`)
        epochs (int, optional): Epochs at most.
            (default: :obj:`200`)
        patience (int, optional): Stop after so many epochs without a better
            validation metric; :obj:`None` never stops early.
            (default: :obj:`None`)
        select (str, optional): :obj:`"best_val"` reports the epoch with the
            best validation metric, :obj:`"last"` the last one.
            (default: :obj:`"best_val"`)
        schedule (StrengthSchedule, optional): The strength of quantization
            over the epochs. (default: fully quantized from the start)
        reset_optimizer (bool, optional): If set to :obj:`True`, the optimizer
            forgets its state when the strength rises from 0.
            (default: :obj:`False`)
        width (int, optional): What :obj:`hidden_channels` is multiplied by on
            the ternary side. (default: :obj:`1`)
        keep (str, optional): The layer of the ternary side that stays in 32
            bits, :obj:`"first"`, :obj:`"last"` or :obj:`None`.
            (default: :obj:`None`)
        teacher (str, optional): The teacher's model, :obj:`"same"` for the
            student's own: its 32-bit run on the same data, split and seed.
            (default: :obj:`None`)
        teacher_weight (float, optional): The weight :math:`w` of the teacher.
            (default: :obj:`1.0`)
        teacher_decay (str, optional): How the weight of the teacher falls to
            0 over the epochs, :obj:`"linear"`, :obj:`"cosine"` or :obj:`None`.
            (default: :obj:`None`)
        temperature (float, optional): The temperature :math:`T`.
            (default: :obj:`1.0`)
        standardize (str, optional): How the logits of teacher and student are
            standardized: over the :obj:`"graph"`, a :obj:`"node"` at a time, or
            :obj:`None` for not at all. (default: :obj:`None`)
        start (str, optional): The initial parameters: :obj:`"scratch"` draws
            them, :obj:`"teacher"` takes the teacher's.
            (default: :obj:`"scratch"`)
        batch (str, optional): What a step sees
            (:mod:`bitgnn.training.batches`): sampled neighborhoods
            (:obj:`"neighbor"`), random parts of the graph (:obj:`"random"`),
            random walks (:obj:`"saint"`), clusters (:obj:`"cluster"`), or
            :obj:`None` for the whole graph. (default: :obj:`None`)
        batch_size (int, optional): Nodes that a step learns from, of
            :obj:`"neighbor"`; walks of :obj:`"saint"`; clusters of
            :obj:`"cluster"`. (default: :obj:`1024`)
        num_neighbors (tuple[int], optional): How many neighbors
            :obj:`"neighbor"` samples in each layer, :obj:`-1` for all; the
            last number serves all layers that follow.
            (default: :obj:`(15, 10, 5)`)
        num_parts (int, optional): The number of parts of :obj:`"random"` and
            clusters of :obj:`"cluster"`. (default: :obj:`10`)

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
    feature_norm: Literal["row", "l2", "none"] = "row"
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = 0.01
    lr_decay: Literal["linear", "cosine"] | None = None
    weight_decay: float = 5e-4
    latent_lr: float | None = None
    latent_weight_decay: float | None = 0.0
    latent_optimizer: Literal["adam", "adamw"] | None = None
    latent_gain: float = 1.0
    latent_power: float = 1.0
    epochs: int = 200
    patience: int | None = None
    select: Literal["best_val", "last"] = "best_val"
    schedule: StrengthSchedule = field(default_factory=StrengthSchedule)
    reset_optimizer: bool = False
    width: int = 1
    keep: Literal["first", "last"] | None = None
    teacher: str | None = None
    teacher_weight: float = 1.0
    teacher_decay: Literal["linear", "cosine"] | None = None
    temperature: float = 1.0
    standardize: Literal["graph", "node"] | None = None
    start: Literal["scratch", "teacher"] = "scratch"
    batch: Literal["neighbor", "random", "saint", "cluster"] | None = None
    batch_size: int = 1024
    num_neighbors: tuple[int, ...] = (15, 10, 5)
    num_parts: int = 10

    def __post_init__(self) -> None:
        for name, most in MAX_COUNTS.items():
            if name != "patience" or self.patience is not None:
                self._check_count(name, most)
        self._check_neighbors()
        for name in ("dropout", "input_dropout", "attention_dropout"):
            self._check_number(name, "in [0, 1)", lambda value: 0 <= value < 1)
        for name in ("lr", "latent_gain", "temperature"):
            self._check_number(name, "above 0", lambda value: value > 0)
        for name in ("weight_decay", "teacher_weight"):
            self._check_number(name, "at least 0", lambda value: value >= 0)
        self._check_number("latent_power", "at least 1", lambda value: value >= 1)
        if self.latent_lr is not None:
            self._check_number("latent_lr", "above 0", lambda value: value > 0)
        if self.latent_weight_decay is not None:
            self._check_number("latent_weight_decay", "at least 0", lambda value: value >= 0)
        self._check_choice("act", ACTIVATIONS)
        self._check_choice("norm", NORMS)
        self._check_choice("feature_norm", FEATURE_NORMS)
        self._check_choice("optimizer", OPTIMIZERS)
        self._check_choice("latent_optimizer", (*OPTIMIZERS, None))
        self._check_choice("lr_decay", DECAYS)
        self._check_choice("teacher_decay", DECAYS)
        self._check_choice("select", SELECTIONS)
        self._check_choice("start", STARTS)
        self._check_choice("keep", KEPT)
        self._check_choice("standardize", STANDARDIZED)
        self._check_choice("batch", BATCHES)
        if not isinstance(self.schedule, StrengthSchedule):
            raise TypeError(f"'schedule' must be a StrengthSchedule (got {self.schedule!r})")
        if not isinstance(self.reset_optimizer, bool):
            raise TypeError(f"'reset_optimizer' must be True or False (got {self.reset_optimizer})")
        if self.teacher is not None and not isinstance(self.teacher, str):
            raise TypeError(
                f"'teacher' must be 'same', the name of a model or None (got {self.teacher!r})"
            )
        self._check_together()

    def _check_together(self) -> None:
        if self.patience is not None and self.select == "last":
            raise ValueError(
                "'patience' waits for a better validation metric, which select='last' ignores: "
                "use select='best_val' or patience=None"
            )
        if self.reset_optimizer and self.schedule(1 / self.epochs) > 0:
            raise ValueError(
                "'reset_optimizer' waits for the strength to rise from 0, where this schedule "
                "never is: use one that starts later, such as step:0.5, or reset_optimizer=False"
            )
        if self.teacher is None:
            for name in TEACHING[1:]:
                if getattr(self, name) != getattr(type(self), name):
                    raise ValueError(
                        f"'{name}={getattr(self, name)}' needs a teacher: set teacher='same' or "
                        f"to the name of a model, or leave '{name}' at {getattr(type(self), name)}"
                    )
        elif self.start == "scratch":
            if self.teacher_weight == 0:
                raise ValueError(
                    "With teacher_weight=0 and start='scratch' the teacher has no part: raise the "
                    "weight, or use start='teacher' or teacher=None"
                )
        elif self.teacher != "same" or self.width != 1:
            raise ValueError(
                "start='teacher' copies parameters, which needs teacher='same' and width=1 "
                f"(got teacher={self.teacher!r} and width={self.width}): use start='scratch'"
            )

    def _check_count(self, name: str, most: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"'{name}' must be an integer (got {value!r})")
        if value < 1:
            raise ValueError(f"'{name}' must be at least 1 (got {value})")
        if value > most:
            raise ValueError(f"'{name}' must be at most {most:,} (got {value})")

    def _check_neighbors(self) -> None:
        given = self.num_neighbors
        counts = [given] if isinstance(given, int) else given
        if not isinstance(counts, (list, tuple)) or not all(type(n) is int for n in counts):
            raise TypeError(f"'num_neighbors' must be integers, one a layer (got {given!r})")
        if not counts or not all(n >= 1 or n == -1 for n in counts):
            raise ValueError(
                f"'num_neighbors' must be at least 1 each, or -1 for all neighbors (got {given!r})"
            )
        object.__setattr__(self, "num_neighbors", tuple(counts))  # read from JSON, it is a list

    def _check_number(self, name: str, allowed: str, test: Any) -> None:
        value = getattr(self, name)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"'{name}' must be a number (got {value!r})")
        if not math.isfinite(value) or not test(value):
            raise ValueError(f"'{name}' must be {allowed} (got {value})")
        if value > MAX_NUMBER:
            raise ValueError(f"'{name}' must be at most {MAX_NUMBER:g} (got {value:g})")
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

    def plain(self) -> "Recipe":
        """Returns the recipe of the 32-bit run that this one is compared with: without what
        concerns only ternary layers or a teacher, so that one run serves all such recipes."""
        return self.replace(**_defaults(*QUANTIZED, *TEACHING))

    def distilled(self) -> "Recipe":
        """Returns the recipe of the 32-bit run with the same teacher: :meth:`plain`, but taught."""
        return self.replace(**_defaults(*QUANTIZED))

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as plain values, fit for JSON."""
        return {**asdict(self), "num_neighbors": list(self.num_neighbors)}

    def to_record(self) -> dict[str, Any]:
        """Returns what names the recipe in the record and the key of a run: :meth:`to_dict`,
        but younger fields only where they are used. Also understood by :meth:`from_dict`."""
        neutral = Recipe().to_dict()
        fields = self.to_dict().items()
        return {
            name: value for name, value in fields if name not in YOUNGER or value != neutral[name]
        }

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


def _defaults(*names: str) -> dict[str, Any]:
    neutral = Recipe()
    return {name: getattr(neutral, name) for name in names}
