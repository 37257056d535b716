import json
import shutil

import pytest

from bitgnn import QuantConfig
from bitgnn.experiment import RunSpec, Store, compare
from bitgnn.experiment.compare import build_specs, stored_comparison
from bitgnn.experiment.run import execute
from bitgnn.experiment.teachers import teachers_dir
from bitgnn.experiment.workers import RunError
from bitgnn.training import Recipe, recipe_for

FAST = {"recipe": "scratch", "settings": {"epochs": 3}, "progress": False, "workers": 1}


def test_compare(tmp_path):
    comparison = compare("Digits", ["gcn", "mlp"], 2, store=tmp_path / "s", **FAST)
    names = [(row["dataset"], row["model"], row["precision"]) for row in comparison.rows]
    precisions = ("fp32", "absmean", "absmedian")
    assert names == [("Digits", model, each) for model in ("gcn", "mlp") for each in precisions]
    assert comparison.num_trained == len(comparison.records) == 12
    full, ternary = comparison.rows[:2]
    assert full["diff_mean"] is None
    pairs = zip(ternary["accuracies"], full["accuracies"], strict=True)
    assert ternary["diff_mean"] == pytest.approx(sum(a - b for a, b in pairs) / 2)
    assert ternary["seeds"] == [0, 1]
    assert ternary["weight_bytes"] < full["weight_bytes"] == ternary["weight_bytes_fp32"]
    assert "--set epochs=3" in ternary["command"]
    json.dumps(comparison.rows, allow_nan=False)


def test_nothing_is_trained_twice(tmp_path, monkeypatch):
    small = compare("Digits", "mlp", 2, precision="fp32", store=tmp_path / "s", **FAST)
    larger = compare("Digits", "mlp", 3, precision="fp32", store=tmp_path / "s", **FAST)
    assert (small.num_trained, larger.num_trained) == (2, 1)
    assert larger.rows[0]["accuracies"][:2] == small.rows[0]["accuracies"]
    monkeypatch.setattr("bitgnn.experiment.workers.execute", None)
    again = compare("Digits", "mlp", 3, precision="fp32", store=tmp_path / "s", **FAST)
    assert again.rows == larger.rows
    assert again.num_trained == 0


def test_each_run_is_stored_as_it_finishes(tmp_path, monkeypatch):
    from bitgnn.experiment import workers

    done, execute = [], workers.execute

    def interrupted(spec, *args):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(spec)
        return execute(spec, *args)

    monkeypatch.setattr(workers, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare("Digits", ["sgc", "mlp"], 2, precision="fp32", store=tmp_path / "s", **FAST)
    # All models have their first seed before one has its second.
    assert [(s.model, s.seed) for s in done] == [("sgc", 0), ("mlp", 0), ("sgc", 1)]
    with Store(tmp_path / "s") as store:
        assert {record["key"] for record in store.records()} == {spec.key for spec in done}


def test_teachers_come_before_their_students(tmp_path, monkeypatch):
    from bitgnn.experiment import workers

    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    executed, execute = [], workers.execute
    monkeypatch.setattr(
        workers, "execute", lambda spec, *args: executed.append(spec) or execute(spec, *args)
    )
    changes = {**FAST, "settings": {"teacher": "mlp", "epochs": 2}}
    compare("Digits", ["gcn", "mlp"], 2, precision=("fp32", "absmean"), store=tmp_path / "s",
            **changes)  # fmt: skip
    assert [(spec.seed, spec.model, spec.precision) for spec in executed] == [
        (seed, model, precision)
        for seed in (0, 1)
        for precision in ("fp32", "absmean")
        for model in ("gcn", "mlp")
    ]


def test_open_store_stays_open(tmp_path):
    with Store(tmp_path / "s") as store:
        compare("Digits", "mlp", 1, precision="fp32", store=store, **FAST)
        assert len(store) == 1


def test_both_sides_have_one_recipe():
    specs = build_specs("Digits", "gat", 1, "scratch", settings={"lr": 0.1})
    assert specs[0].recipe == specs[1].recipe == specs[2].recipe
    assert specs[0].recipe["lr"] == 0.1
    assert specs[0].recipe["act"] == "elu"
    assert [spec.quant and spec.quant["weight_measure"] for spec in specs] == [
        None, "absmean", "absmedian",
    ]  # fmt: skip


def test_recipe_and_quant_of_ones_own():
    quant = QuantConfig(granularity="channel")
    specs = build_specs("Digits", ["gcn", "gat"], 1, Recipe(lr=0.3), "absmedian", quant=quant)
    assert [spec.recipe["lr"] for spec in specs] == [0.3, 0.3]
    assert specs[0].quant == quant.replace(weight_measure="absmedian").to_dict()


def test_parts_change_recipe_and_quantization():
    specs = build_specs("Digits", "gcn", 1, "distill+channel+wide2", ["fp32", "absmean"])
    full, ternary = specs
    assert full.quant is full.teacher is None
    assert (full.recipe["width"], full.recipe["teacher"]) == (1, None)
    assert (ternary.recipe["width"], ternary.recipe["teacher"]) == (2, "same")
    assert ternary.quant == QuantConfig(granularity="channel").to_dict()
    mine = QuantConfig(activation_bits=4)
    [ternary] = build_specs("Digits", "gcn", 1, "distill+channel", "absmean", quant=mine)
    assert ternary.quant == mine.to_dict()


def test_one_32_bit_run_serves_all_recipes_and_their_students():
    [full] = build_specs("Digits", "gcn", 1, precision="fp32")
    for name in ("continual", "distill", "decoupled+channel", "wide4"):
        sides = {spec.precision: spec for spec in build_specs("Digits", "gcn", 1, name)}
        assert sides["fp32"] == full
        assert sides["absmean"].teacher_spec() == (full if name == "distill" else None)
        assert ("fp32-distilled" in sides) == (name == "distill")
    distilled = {
        build_specs("Digits", "gcn", 1, name, "fp32-distilled")[0].key
        for name in ("distill", "distill+continual+channel+wide2")
    }
    assert len(distilled) == 1


def test_teacher_of_another_model_has_its_own_recipe():
    settings = {"teacher": "gat", "lr": 0.3}
    [spec] = build_specs("Digits", "gcn", 1, precision="absmean", settings=settings)
    plain = recipe_for("gat", "Digits").plain().to_record()
    assert spec.teacher == {"model": "gat", "recipe": plain}
    [own] = build_specs("Digits", "gat", 1, precision="absmean", settings=settings)
    [same] = build_specs(
        "Digits", "gat", 1, precision="absmean", settings={**settings, "teacher": "same"}
    )
    assert own == same
    plain = Recipe.from_dict(own.recipe).plain().to_record()
    assert own.teacher == {"model": "gat", "recipe": plain}


def test_names_that_occur_twice_run_once():
    assert len(build_specs(["Digits", "digits"], ["gcn", "gcn"], 2, precision="fp32")) == 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dataset": "Atlantis"}, "no data set 'Atlantis'"),
        ({"dataset": []}, "'dataset' must name at least one dataset"),
        ({"model": "gin"}, "No model is called 'gin'"),
        (
            {"precision": "int1"},
            "No precision is called 'int1'; there are fp32, fp32-distilled, absmean",
        ),
        ({"seeds": 0}, "'seeds' must be at least one"),
        ({"recipe": "best"}, "No recipe is called 'best'"),
        ({"settings": {"lr": -1}}, "'lr' must be above 0"),
        (
            {"recipe": "distil"},
            "No recipe is called 'distil'; there are default, paper and the parts",
        ),
        ({"recipe": "wide2+wide4"}, "wide2 and wide4 both set 'width'"),
        ({"settings": {"teacher": "gin"}}, "No model is called 'gin'"),
        (
            {"recipe": "scratch", "settings": {"temperature": 2.0}},
            "'temperature=2.0' needs a teacher",
        ),
        (
            {"recipe": "scratch", "precision": "fp32-distilled"},
            "32-bit with a teacher, which the recipe lacks: use",
        ),
        ({"quant": "b2"}, "No preset is called 'b2'"),
        ({"quant": None}, "'quant' says how the ternary side quantizes"),
        ({"split": "full"}, "'Digits' has no split 'full'"),
        ({"device": "gpu"}, "No device is called 'gpu'"),
    ],
)
def test_wrong_value_is_told_before_anything_runs(changes, match, tmp_path):
    arguments = {"dataset": "Digits", "model": "gcn", "store": tmp_path / "s", **changes}
    with pytest.raises(ValueError, match=match):
        compare(**arguments)
    assert not (tmp_path / "s").exists()


def test_runs_that_are_given_up_are_in_no_row(tmp_path, monkeypatch):
    def run_all(specs, root, device, workers, on_epoch, on_failure):
        for spec in specs:
            if spec.seed == lost:
                on_failure(spec, "its process was killed")
            else:
                yield execute(spec)

    monkeypatch.setattr("bitgnn.experiment.complete.run_all", run_all)
    arguments = {"precision": "fp32", "store": tmp_path / "s", **FAST}
    lost = 1
    found = compare("Digits", "mlp", 3, out=tmp_path, **arguments)
    assert [failure.spec.seed for failure in found.failures] == [1]
    assert (found.rows[0]["seeds"], found.num_trained) == ([0, 2], 2)
    assert "seed 1 failed: its process was killed; the same" in found.report.read_text()
    lost = 3
    with pytest.raises(RunError, match="^Digits mlp fp32 seed 3 failed: its process was killed$"):
        compare("Digits", "mlp", "3:4", **arguments)
    lost = None
    assert compare("Digits", "mlp", 3, **arguments).num_trained == 1


def test_stored_comparison(tmp_path):
    compare("Digits", ["sgc", "mlp"], 1, store=tmp_path / "s", **FAST)
    everything = stored_comparison(tmp_path / "s")
    assert len(everything.rows) == 6
    assert everything.num_trained == 0
    part = stored_comparison(tmp_path / "s", model=["mlp"], precision=None)
    assert {row["model"] for row in part.rows} == {"mlp"}


def test_stored_comparison_of_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"no result store .*absent'"):
        stored_comparison(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    Store(tmp_path / "s").close()
    with pytest.raises(ValueError, match=r"holds no results for .'model': 'gcn'"):
        stored_comparison(tmp_path / "s", model="gcn")


def test_cora(tmp_path, data_root):
    comparison = compare(
        "Cora", "gcn", 1, "scratch", ("fp32", "absmean"), store=tmp_path / "s", root=data_root,
        workers=1, progress=False, settings={"epochs": 60},
    )  # fmt: skip
    full, ternary = comparison.rows
    assert full["mean"] > 78.0
    assert ternary["mean"] > 76.0
    assert ternary["split"] == "public"


def test_default_on_cora(tmp_path, data_root, monkeypatch):
    r"""The 32-bit run, its students, and both differences; whoever trains the teacher."""
    from bitgnn.experiment import workers

    def run(store, **kwargs):
        return compare(
            "Cora", "gcn", 2, store=tmp_path / store, root=data_root, progress=False,
            settings={"epochs": 15}, **kwargs,
        )  # fmt: skip

    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))
    executed, execute = [], workers.execute
    monkeypatch.setattr(
        workers, "execute", lambda spec, *args: executed.append(spec) or execute(spec, *args)
    )
    first = run("first", workers=1)
    assert [(spec.seed, spec.precision) for spec in executed] == [
        (seed, precision)
        for seed in (0, 1)
        for precision in ("fp32", "fp32-distilled", "absmean", "absmedian")
    ]
    assert len(list(teachers_dir().iterdir())) == 2  # left by the two 32-bit runs
    full, distilled, *ternary = first.rows
    assert [row["precision"] for row in first.rows] == [
        "fp32", "fp32-distilled", "absmean", "absmedian"
    ]  # fmt: skip
    assert full["diff_distilled_mean"] is distilled["diff_distilled_mean"] is None
    assert distilled["diff_mean"] == pytest.approx(distilled["mean"] - full["mean"])
    for row in ternary:
        assert row["diff_mean"] == pytest.approx(row["mean"] - full["mean"])
        assert row["diff_distilled_mean"] == pytest.approx(row["mean"] - distilled["mean"])
        assert row["diff_distilled_low"] < row["diff_distilled_high"]
        assert row["recipe_name"] == "default"
    seconds = {r["key"]: r["seconds"] for r in first.records}
    for record in first.records:
        if record["spec"]["teacher"]:
            teacher = RunSpec.from_dict(record["spec"]).teacher_spec()
            assert record["teacher_seconds"] == seconds[teacher.key]

    again = run("first", workers=1)
    assert again.num_trained == 0
    assert again.rows == first.rows

    # A store without the 32-bit runs, and a cold cache: students train their teachers.
    shutil.rmtree(teachers_dir())
    cold = run("cold", workers=2, precision=["fp32-distilled", "absmean"])
    assert cold.num_trained == 4
    assert [row["accuracies"] for row in cold.rows] == [
        row["accuracies"] for row in (distilled, ternary[0])
    ]
    assert [row["diff_mean"] for row in cold.rows] == [None, None]
