from benchmarks.gap.factors import FACTORS, Factor, Level, factors_named
from benchmarks.gap.plan import all_specs, plan
from bitgnn.experiment.rows import DISTILLED
from bitgnn.training import recipe_for


def test_a_line_can_have_another_base(small):
    (factor,) = factors_named(["layer"])
    cells = {cell.line: cell for cell in plan(factor, small)}
    assert list(cells) == ["scratch", "distill"]
    for base, cell in cells.items():
        (spec,) = (spec for spec in cell.specs if spec.precision == "absmean")
        assert (
            spec.recipe == recipe_for(cell.model, "Digits", base).replace(keep="last").to_record()
        )
        assert (DISTILLED in {spec.precision for spec in cell.specs}) == (base == "distill")


def test_untaught_models_are_not_distilled(small):
    (factor,) = factors_named(["teacher-weight"])
    taught = {cell.level for cell in plan(factor, small) if cell.precision == DISTILLED}
    assert taught == {"1", "5", "20", "100"}


def test_changes_of_level_line_and_study_are_joined(small):
    factor = Factor(
        "x", "", "", "",
        (Level("a", recipe={"lr": 0.5}, quant={"activation_bits": 4}),),
        (Level("b", parts="channel", recipe={"width": 2, "lr": 0.1}, precision="absmedian"),),
    )  # fmt: skip
    settings = {"epochs": 7, "width": 4}
    (cell,) = plan(factor, type(small)(("Digits",), ("mlp",), (3,), settings))
    full, spec = cell.specs
    assert (cell.precision, spec.precision, full.precision) == ("absmedian", "absmedian", "fp32")
    assert (spec.recipe["lr"], spec.recipe["width"], spec.recipe["epochs"]) == (0.5, 2, 7)
    assert (spec.quant["granularity"], spec.quant["activation_bits"]) == ("channel", 4)
    assert (full.recipe["lr"], full.recipe["width"], full.recipe["epochs"]) == (0.5, 1, 7)
    assert (spec.seed, full.seed) == (3, 3)


def test_runs_are_shared(small):
    several = [spec.key for spec in all_specs(FACTORS, small)]
    assert len(set(several)) == len(several)
    assert len(several) < sum(len(all_specs([factor], small)) for factor in FACTORS)
    assert set(several) == {s.key for f in FACTORS for cell in plan(f, small) for s in cell.specs}
