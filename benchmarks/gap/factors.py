"""What is varied: every factor with its levels, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bitgnn.experiment.rows import DISTILLED
from bitgnn.quant import StrengthSchedule
from bitgnn.training import Recipe
from bitgnn.training.recipe import TEACHING


@dataclass(frozen=True)
class Level:
    """One setting of a factor, or one line of its figure: what it changes, and in what.

    Args:
        label: What the figure calls it.
        parts: Parts of recipes that it adds, such as `"distill"`.
        recipe: Fields of the recipe that it changes.
        quant: Fields of the quantization that it changes.
        precision: The precision, if not that of the base.
        base: The recipe that is changed, if not that of the factor.
    """

    label: str
    parts: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    quant: Mapping[str, Any] = field(default_factory=dict)
    precision: str | None = None
    base: str | None = None


ABSMEAN = Level("absmean")


@dataclass(frozen=True)
class Factor:
    """A question, and the runs that answer it: each level with each line.

    Args:
        name: The name on the command line and of the figure.
        title: The heading.
        question: What it answers.
        axis: What the levels are, for the axis below the figure.
        levels: From left to right.
        lines: What is drawn at each level.
        usual: The label of the level that the base has, if it is one of them.
        base: The recipe that is changed.
        shows: The difference to the 32-bit run of the same recipe and seed, or, where levels
            change that run as well, the accuracy of both.
        ordered: Whether levels are more and less of something, so that lines may join them.
        pair: Whether it is a pair of factors.
    """

    name: str
    title: str
    question: str
    axis: str
    levels: tuple[Level, ...]
    lines: tuple[Level, ...] = (ABSMEAN,)
    usual: str | None = None
    base: str = "scratch"
    shows: Literal["difference", "accuracy"] = "difference"
    ordered: bool = True
    pair: bool = False


NO_TEACHER = {name: getattr(Recipe(), name) for name in TEACHING}
FULL, ABSMEDIAN = Level("32-bit", precision="fp32"), Level("absmedian", precision="absmedian")
TAUGHT = Level("32-bit distilled", precision=DISTILLED)
BOTH_SIDES = (FULL, ABSMEAN, ABSMEDIAN)
BOTH_BASES = (Level("scratch"), Level("distill", base="distill"))


def _settings(name: str, *values: Any, **labels: Any) -> tuple[Level, ...]:
    """A level for each value of a field of the recipe; then those with a label."""
    labelled = {f"{value:g}": value for value in values} | labels
    return tuple(Level(label, recipe={name: value}) for label, value in labelled.items())


def _quant(name: str, values: Mapping[str, Any]) -> tuple[Level, ...]:
    return tuple(Level(label, quant={name: value}) for label, value in values.items())


def _schedule(label: str, kind: str, start: float = 0.0, end: float = 0.5) -> Level:
    schedule = StrengthSchedule(kind, start, end)  # type: ignore[arg-type]
    return Level(label, recipe={"schedule": schedule})


WIDTHS = tuple(Level(f"×{width}", recipe={"width": width}) for width in (1, 2, 4))
ACTIVATIONS = {"32": None, "8": 8, "6": 6, "4": 4, "2": 2}
WEIGHTS = {"1.58": 1.58, "2": 2, "4": 4, "8": 8, "32": None}
MEASURES = tuple(Level(name, precision=name) for name in ("absmean", "absmedian", "absmax"))
GRANULARITIES = _quant("granularity", {"tensor": "tensor", "channel": "channel"})
UNTAUGHT = Level("none", recipe=NO_TEACHER)
SWITCHES = (
    _schedule("step at 1/4", "step", 0.25),
    _schedule("step at 1/2", "step", 0.5),
    _schedule("linear 1/4 to 1/2", "linear", 0.25, 0.5),
    _schedule("linear 1/2 to 3/4", "linear", 0.5, 0.75),
)

FACTORS = (
    Factor(
        "weight-decay",
        "Weight decay, by measure",
        "How much weight decay does each side bear, if all its weights have the same?",
        "Weight decay (L2, Adam) of all weights",
        tuple(
            Level(f"{decay:g}", recipe={"weight_decay": decay, "latent_weight_decay": decay})
            for decay in (0.0, 5e-5, 5e-4, 5e-3)
        ),
        BOTH_SIDES,
        shows="accuracy",
    ),
    Factor(
        "latent-decay",
        "Weight decay of latent weights",
        "What decay do latent weights bear, if all other parameters keep theirs?",
        "Weight decay of latent weights: L2 as in Adam, or decoupled (AdamW)",
        (
            Level("none"),
            *_settings(
                "latent_weight_decay", **{"L2 5e-5": 5e-5, "L2 5e-4": 5e-4, "L2 5e-3": 5e-3}
            ),
            *(
                Level(
                    f"dec. {decay:g}",
                    recipe={"latent_optimizer": "adamw", "latent_weight_decay": decay},
                )
                for decay in (0.01, 0.1, 1.0)
            ),
        ),
        usual="none",
        ordered=False,
    ),
    Factor(
        "learning-rate",
        "Learning rate, by measure",
        "Over what range of learning rates does each side train well?",
        "Learning rate",
        _settings("lr", 0.001, 0.005, 0.01, 0.02, 0.05, 0.1),
        BOTH_SIDES,
        shows="accuracy",
    ),
    Factor(
        "latent-lr",
        "Learning rate of latent weights",
        "Do latent weights want another learning rate than the other parameters?",
        "Learning rate of latent weights",
        _settings("latent_lr", 0.001, 0.005, 0.01, 0.03, 0.1),
    ),
    Factor(
        "latent-gain",
        "Size of the initial latent weights",
        "Does it matter how large latent weights are when training begins?",
        "What the initial latent weights are multiplied by",
        _settings("latent_gain", 0.3, 1.0, 3.0, 10.0),
        usual="1",
    ),
    Factor(
        "latent-power",
        "Power of latent weights",
        "Does it help to train latent weights as powers, which leaves more of them at zero?",
        "Power",
        _settings("latent_power", 1.0, 1.5, 2.0, 3.0, 5.0),
        BOTH_BASES,
        usual="1",
    ),
    Factor(
        "schedule",
        "Strength schedule",
        "Does it help to train in 32 bits first, and to phase the quantization in?",
        "Strength over the epochs: 0 (32-bit) before, 1 (ternary) after",
        (
            _schedule("constant", "constant"),
            *SWITCHES,
            _schedule("linear 0 to 1/2", "linear", 0.0, 0.5),
            _schedule("cosine 0 to 1/2", "cosine", 0.0, 0.5),
        ),
        usual="constant",
        ordered=False,
    ),
    Factor(
        "start",
        "Start point",
        "Where from: random weights, 32-bit epochs in the same run, or a finished 32-bit run?",
        "Start",
        (
            Level("scratch"),
            Level("continual", parts="continual"),
            Level(
                "32-bit run",
                recipe={"teacher": "same", "teacher_weight": 0.0, "start": "teacher"},
            ),
            Level("scratch, taught", parts="distill"),
            Level("continual, taught", parts="continual+distill"),
            Level("32-bit run, taught", parts="distill", recipe={"start": "teacher"}),
        ),
        (ABSMEAN, TAUGHT),
        usual="scratch",
        ordered=False,
    ),
    Factor(
        "teacher-weight",
        "Weight of the teacher",
        "How much should the 32-bit run of the same seed teach?",
        "Weight of the teacher in the loss",
        (
            UNTAUGHT,
            *(
                Level(f"{weight:g}", parts="distill", recipe={"teacher_weight": weight})
                for weight in (1.0, 5.0, 20.0, 100.0)
            ),
        ),
        (ABSMEAN, TAUGHT),
        usual="none",
    ),
    Factor(
        "teacher-decay",
        "A teacher that falls silent",
        "Should the weight of the teacher fall over the epochs?",
        "How the weight of the teacher falls",
        tuple(
            Level(label, parts="distill", recipe={"teacher_decay": decay})
            for label, decay in (("not at all", None), ("linear", "linear"), ("cosine", "cosine"))
        ),
        (ABSMEAN, TAUGHT),
        ordered=False,
    ),
    Factor(
        "standardize",
        "What of the teacher's logits is learned",
        "Must a student take over the scale of its teacher's logits, and each node's certainty?",
        "Standardized",
        (
            Level("not at all", parts="distill", recipe={"standardize": None, "temperature": 1.0}),
            Level("graph", parts="distill"),
            Level("node", parts="distill", recipe={"standardize": "node"}),
        ),
        (ABSMEAN, TAUGHT),
        ordered=False,
    ),
    Factor(
        "temperature",
        "Temperature of the teacher",
        "Do softer or harder targets teach better?",
        "Temperature",
        tuple(
            Level(f"{value:g}", parts="distill", recipe={"temperature": value})
            for value in (0.25, 0.5, 1.0, 2.0)
        ),
        (ABSMEAN, TAUGHT),
    ),
    Factor(
        "teacher-model",
        "Who teaches",
        "Is the best teacher the 32-bit twin, or a model that knows more of the graph?",
        "Teacher",
        (
            UNTAUGHT,
            *(
                Level(name, parts="distill", recipe={"teacher": name})
                for name in ("same", "gcn", "sage", "gat")
            ),
        ),
        (ABSMEAN, TAUGHT),
        usual="none",
        ordered=False,
    ),
    Factor(
        "norm",
        "LayerNorm",
        "Does normalization help: before the quantization, as in the papers, or between layers?",
        "LayerNorm (LN) inside ternary layers, before they quantize; LN or BatchNorm (BN) between "
        "layers, on both sides",
        (
            Level("none"),
            Level("LN inside", quant={"layer_norm": True}),
            *_settings(
                "norm",
                **{"LN between": "layer_norm", "BN between": "batch_norm"},
            ),
        ),
        (FULL, ABSMEAN),
        usual="none",
        shows="accuracy",
        ordered=False,
    ),
    Factor(
        "activation-bits",
        "Activation bits",
        "How many bits do activations need?",
        "Bits of an activation",
        _quant("activation_bits", ACTIVATIONS),
        BOTH_BASES,
        usual="8",
    ),
    Factor(
        "weight-bits",
        "Weight bits",
        "How many bits do weights need, with 8-bit activations?",
        "Bits of a weight",
        _quant("weight_bits", WEIGHTS),
        BOTH_BASES,
        usual="1.58",
    ),
    Factor(
        "scale",
        "One scale a tensor or a channel",
        "Is one weight scale a layer enough?",
        "One weight scale per",
        GRANULARITIES,
        BOTH_BASES,
        usual="tensor",
        ordered=False,
    ),
    Factor(
        "layer",
        "Which layer hurts",
        "Which of the two layers loses what is lost?",
        "Layer that stays in 32 bits",
        _settings("keep", none=None, first="first", last="last"),
        BOTH_BASES,
        usual="none",
        ordered=False,
    ),
    Factor(
        "measure",
        "Mean against median",
        "Which measure of the weights makes the better scale?",
        "Measure",
        MEASURES,
        BOTH_BASES,
        usual="absmean",
        ordered=False,
    ),
    Factor(
        "epochs",
        "Epochs",
        "Does ternary only need longer?",
        "Epochs",
        _settings("epochs", 100, 200, 400, 800),
        (FULL, ABSMEAN),
        usual="200",
        shows="accuracy",
    ),
    Factor(
        "width",
        "Width",
        "What do wider ternary layers bring, beside a 32-bit side of the usual width?",
        "Width of the ternary side",
        WIDTHS,
        BOTH_BASES,
        usual="×1",
    ),
    Factor(
        "switch-state",
        "Schedule and optimizer state",
        "Should the optimizer keep its state over the switch to ternary?",
        "Strength over the epochs",
        SWITCHES,
        (Level("state kept"), Level("state reset", recipe={"reset_optimizer": True})),
        ordered=False,
        pair=True,
    ),
    Factor(
        "switch-epochs",
        "Schedule and epochs",
        "Does longer training even out how ternary began?",
        "Strength over the epochs",
        (_schedule("constant", "constant"), SWITCHES[1], SWITCHES[2]),
        (Level("200 epochs"), Level("800 epochs", recipe={"epochs": 800})),
        usual="constant",
        ordered=False,
        pair=True,
    ),
    Factor(
        "hidden-width",
        "Hidden size and width",
        "Do small models match 32-bit when their hidden size is doubled?",
        "Hidden size of the 32-bit side",
        _settings("hidden_channels", 8, 16, 32, 64),
        WIDTHS[:2],
        usual="64",
        pair=True,
    ),
    Factor(
        "teacher-activations",
        "Teacher and activation bits",
        "Does a teacher make up for fewer activation bits?",
        "Bits of an activation",
        _quant("activation_bits", {"8": 8, "4": 4, "2": 2}),
        (Level("no teacher"), Level("distill", parts="distill")),
        usual="8",
        pair=True,
    ),
    Factor(
        "width-activations",
        "Width and activation bits",
        "Do wider layers make up for fewer activation bits?",
        "Bits of an activation",
        _quant("activation_bits", {"8": 8, "4": 4, "2": 2}),
        WIDTHS,
        usual="8",
        base="distill",
        pair=True,
    ),
    Factor(
        "bits",
        "Weight bits and activation bits",
        "Do weights or activations lose what is lost?",
        "Bits of a weight",
        _quant("weight_bits", {"1.58": 1.58, "4": 4, "32": None}),
        tuple(
            Level(f"{bits}-bit activations", quant={"activation_bits": bits}) for bits in (8, 4, 2)
        ),
        usual="1.58",
        pair=True,
    ),
    Factor(
        "measure-scale",
        "Measure and scale",
        "Does it depend on the measure whether scales should be per channel?",
        "Measure",
        MEASURES,
        tuple(Level(f"per {level.label}", quant=level.quant) for level in GRANULARITIES),
        usual="absmean",
        ordered=False,
        pair=True,
    ),
)


@dataclass(frozen=True)
class Finding:
    """What a paper has found, and where it is looked at here.

    Args:
        name: The name of its reading.
        claim: What the paper says.
        source: The paper.
        factors: The factors that test it.
    """

    name: str
    claim: str
    source: str
    factors: tuple[str, ...]


FINDINGS = (
    Finding(
        "finding-robustness",
        "Sensitivity to learning rate and weight decay differs from that of large models",
        "2407.09527",
        ("learning-rate", "weight-decay", "latent-decay"),
    ),
    Finding(
        "finding-doubling",
        "Small models match full precision when the hidden size is doubled",
        "2407.09527",
        ("hidden-width", "width"),
    ),
    Finding(
        "finding-median",
        "The median is as good a measure of the scale as the mean",
        "2411.05882",
        ("measure", "weight-decay", "measure-scale"),
    ),
    Finding(
        "finding-continual",
        "To train in full precision first and then ternary is better than ternary from the start",
        "2502.11895",
        ("schedule", "start"),
    ),
    Finding(
        "finding-switch",
        "Keeping the optimizer state and phasing the strength in soften the switch; longer "
        "training evens it out",
        "2502.11895",
        ("switch-state", "switch-epochs"),
    ),
)


def factors_named(names: list[str] | None) -> list[Factor]:
    """Returns the factors with the given names, all of them if there are none.

    Args:
        names: The names.

    Raises:
        ValueError: If no factor has one of the names.
    """
    known = {factor.name: factor for factor in FACTORS}
    for name in names or []:
        if name not in known:
            raise ValueError(f"No factor is called {name!r}; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names or known)]
