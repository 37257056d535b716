import pytest

from bitgnn.experiment import Store
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.complete import complete
from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.tune import Range, Tuned, try_all, tune

SPACE = {"lr": Range(1e-3, 1e-1, log=True), "dropout": Range(0.0, 0.8)}


def specs_of(settings, seeds=(0, 1)):
    recipe = {"settings": settings}
    return [RunSpec("D", "random", "0", "gcn", "fp32", None, recipe, seed) for seed in seeds]


def run(specs):
    """A validation metric with its best at lr 0.01 and dropout 0.5; the test metric misleads."""
    records = []
    for spec in specs:
        settings = spec.recipe["settings"]
        val = 90 - 1000 * abs(settings["lr"] - 0.01) - 50 * abs(settings["dropout"] - 0.5)
        val += 0.1 * spec.seed
        records.append({"key": spec.key, "val": val, "test": -val, "diverged": False})
    return records


def test_the_best_on_validation_data_is_chosen():
    tuned = tune(specs_of, SPACE, run, 30)
    assert len(tuned.trials) == 30
    assert tuned.best.val == max(trial.val for trial in tuned.trials)
    assert tuned.best.val == pytest.approx(sum(tuned.best.vals) / 2)
    assert tuned.best.val > 80
    assert all(trial.settings[name] in SPACE[name] for trial in tuned.trials for name in SPACE)
    assert len({str(trial.settings) for trial in tuned.trials}) == 30


def test_the_search_learns_from_its_trials():
    drawn = tune(specs_of, SPACE, run, 60).trials
    miss = [abs(trial.settings["dropout"] - 0.5) for trial in drawn]
    assert sum(miss[40:]) < 0.7 * sum(miss[:10]) * 2


def test_the_same_seed_draws_the_same_trials():
    assert tune(specs_of, SPACE, run, 12) == tune(specs_of, SPACE, run, 12)
    assert tune(specs_of, SPACE, run, 12) != tune(specs_of, SPACE, run, 12, seed=1)


@pytest.mark.parametrize("fewer", [1, 5, 7, 10])
def test_more_trials_go_on_from_fewer(fewer):
    assert tune(specs_of, SPACE, run, 17).first(fewer) == tune(specs_of, SPACE, run, fewer)


def test_start():
    start = {"lr": 0.005, "dropout": 0.5, "weight_decay": 5e-4}
    tuned = tune(specs_of, SPACE, run, 2, start=start)
    assert tuned.trials[0].settings == {"lr": 0.005, "dropout": 0.5}
    # What lies outside of the space is drawn.
    tuned = tune(specs_of, SPACE, run, 1, start={"lr": 0.5, "dropout": 0.5})
    assert tuned.trials[0].settings["dropout"] == 0.5
    assert tuned.trials[0].settings["lr"] in SPACE["lr"]


def test_a_diverged_run_counts_as_zero():
    def diverges(specs):
        records = run(specs)
        return [
            {**r, "val": None, "diverged": True} if i == 1 else r for i, r in enumerate(records)
        ]

    trial = try_all(specs_of, [{"lr": 0.01, "dropout": 0.5}], diverges).best
    assert (trial.val, trial.vals) == (45.0, [90.0, None])


def test_of_equal_trials_the_first_is_chosen():
    grid = [{"lr": 0.009, "dropout": 0.5}, {"lr": 0.011, "dropout": 0.5}]
    tuned = try_all(specs_of, grid, lambda specs: [
        {"key": spec.key, "val": 50.0, "diverged": False} for spec in specs
    ])  # fmt: skip
    assert tuned.settings == grid[0]


def test_to_dict():
    tuned = try_all(specs_of, [{"lr": 0.02, "dropout": 0.5}, {"lr": 0.01, "dropout": 0.5}], run)
    assert tuned.to_dict() == {
        "settings": {"lr": 0.01, "dropout": 0.5},
        "val": pytest.approx(90.05),
        "trials": [
            {"settings": trial.settings, "val": trial.val, "vals": trial.vals}
            for trial in tuned.trials
        ],
    }
    assert isinstance(tuned, Tuned)


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_no_range(bounds):
    with pytest.raises(ValueError, match="A range needs low < high"):
        Range(*bounds)


def test_no_logarithm():
    with pytest.raises(ValueError, match="must lie above 0"):
        Range(0, 1, log=True)


def test_nothing_to_try():
    with pytest.raises(ValueError, match=r"at least one trial \(got 0\)"):
        tune(specs_of, SPACE, run, 0)
    with pytest.raises(ValueError, match="needs a space"):
        tune(specs_of, {}, run, 1)


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ImportError, match="bitgnn\\[benchmark\\]"):
        tune(specs_of, SPACE, run, 1)


def test_real_runs_resume(tmp_path):
    def real(settings):
        return build_specs(
            "Digits", "mlp", 1, "scratch", "fp32", settings={"epochs": 3, **settings}
        )

    def through(store):
        return lambda specs: complete(specs, store, workers=1, progress=False)

    with Store(tmp_path / "s") as store:
        tune(real, SPACE, through(store), 3)
        assert len(store) == 3
        tuned = tune(real, SPACE, through(store), 6)
        assert len(store) == 6
        assert tune(real, SPACE, lambda specs: [store.get(s.key) for s in specs], 6) == tuned
        by_val = max(store.records(), key=lambda record: record["val"])
    assert tuned.best.val == by_val["val"]
