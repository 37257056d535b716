r"""The choice of hyper-parameters on validation data, with the same budget for all sides."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from bitgnn.experiment.rows import Record
from bitgnn.experiment.spec import RunSpec

Settings = dict[str, Any]
SpecsOf = Callable[[Settings], list[RunSpec]]
Run = Callable[[list[RunSpec]], list[Record]]

ROUND = 5  # trials that are drawn at once, from what is known before them
DIGITS = 3  # of a setting: as many as a person would type


@dataclass(frozen=True)
class Range:
    r"""The values that a hyper-parameter is drawn from.

    Args:
        low (float): The smallest.
        high (float): The largest.
        log (bool, optional): If set to :obj:`True`, uniform in the logarithm.
            (default: :obj:`False`)

    Raises:
        ValueError: If there is no such range.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        bounds = self.low, self.high
        if not all(map(math.isfinite, bounds)) or not self.low < self.high:
            raise ValueError(f"A range needs low < high (got {self.low} and {self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"A range in the logarithm must lie above 0 (got {self.low})")

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


Space = Mapping[str, Range]


@dataclass(frozen=True)
class Trial:
    r"""What a setting came to.

    Args:
        settings (dict): Fields of the recipe.
        val (float): The validation metric, a mean over seeds in which a diverged run counts as 0.
        vals (list[float]): The validation metric of each seed, :obj:`None` if it diverged.
    """

    settings: Settings
    val: float
    vals: list[float | None]


@dataclass(frozen=True)
class Tuned:
    r"""What a search has found.

    Args:
        trials (list[Trial]): All trials, in their order.
    """

    trials: list[Trial]

    @property
    def best(self) -> Trial:
        """The trial with the best validation metric; of equal ones the first."""
        return max(self.trials, key=lambda trial: trial.val)

    @property
    def settings(self) -> Settings:
        """The chosen settings."""
        return self.best.settings

    def first(self, num_trials: int) -> "Tuned":
        """Returns the search as it was after some trials."""
        return Tuned(self.trials[:num_trials])

    def to_dict(self) -> dict[str, Any]:
        """Returns the chosen settings and all trials, fit for JSON."""
        trials = [asdict(trial) for trial in self.trials]
        return {"settings": self.settings, "val": self.best.val, "trials": trials}


def tune(
    specs_of: SpecsOf,
    space: Space,
    run: Run,
    num_trials: int,
    seed: int = 0,
    start: Settings | None = None,
) -> Tuned:
    r"""Searches for the settings with the best validation metric, with the tree-structured Parzen
    estimator of `"Algorithms for Hyper-Parameter Optimization"
    <https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization>`_.

    Test nodes have no part in it. Trials are drawn in rounds of five, so that their runs can take
    place at the same time, and their number changes none of those before. The same seed draws the
    same trials: with runs that are stored, a search that was stopped goes on where it was.

    Args:
        specs_of (Callable): The runs of a setting, one a seed.
        space (dict): The range of each hyper-parameter.
        run (Callable): Returns the records of runs, in their order, as
            :func:`~bitgnn.experiment.complete.complete` does.
        num_trials (int): The number of settings that are tried.
        seed (int, optional): The seed of the search. (default: :obj:`0`)
        start (dict, optional): The settings of the first trial, as far as they lie in the space.
            (default: :obj:`None`, drawn)

    Raises:
        ImportError: If optuna is not installed.
        ValueError: If there is nothing to try.
    """
    if num_trials < 1 or not space:
        raise ValueError(f"A search needs a space and at least one trial (got {num_trials})")
    study = _study(seed)
    known = {name: value for name, value in (start or {}).items() if value in space.get(name, ())}
    if known:
        study.enqueue_trial(known)
    trials: list[Trial] = []
    while len(trials) < num_trials:
        # A round is whole even if its end is not needed: what it draws must not depend on that.
        asked = [study.ask() for _ in range(ROUND)]
        settings = [_draw(each, space) for each in asked][: num_trials - len(trials)]
        found = try_all(specs_of, settings, run).trials
        for each, trial in zip(asked, found, strict=False):
            study.tell(each, trial.val)
        trials += found
    return Tuned(trials)


def try_all(specs_of: SpecsOf, candidates: Sequence[Settings], run: Run) -> Tuned:
    r"""Tries given settings, such as those of a grid.

    Args:
        specs_of (Callable): The runs of a setting, one a seed.
        candidates (list[dict]): The settings.
        run (Callable): Returns the records of runs; see :func:`tune`.
    """
    runs = [specs_of(settings) for settings in candidates]
    specs = list({spec.key: spec for each in runs for spec in each}.values())
    vals = {record["key"]: None if record["diverged"] else record["val"] for record in run(specs)}
    trials = []
    for settings, each in zip(candidates, runs, strict=True):
        mine = [vals[spec.key] for spec in each]
        trials.append(Trial(settings, fmean(val or 0.0 for val in mine), mine))
    return Tuned(trials)


def _study(seed: int) -> Any:
    try:
        import optuna
    except ImportError:
        raise ImportError(
            'The search needs optuna: pip install "bitgnn[benchmark]"', name="optuna"
        ) from None

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return optuna.create_study(direction="maximize", sampler=sampler)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _draw(trial: Any, space: Space) -> Settings:
    return {
        name: _rounded(trial.suggest_float(name, each.low, each.high, log=each.log), each)
        for name, each in space.items()
    }


def _rounded(value: float, within: Range) -> float:
    return min(max(float(f"{value:.{DIGITS}g}"), within.low), within.high)
