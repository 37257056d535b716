from pathlib import Path

import pytest

from benchmarks.gap import factors, page, plan
from benchmarks.gap.factors import FACTORS, FINDINGS, factors_named
from bitgnn.experiment.rows import FULL
from bitgnn.quant import QuantConfig
from bitgnn.training import Recipe, build_model, recipe_for
from bitgnn.training.parts import quant_for

# What is asked for, with the factor that answers it.
ASKED = {
    "weight decay": "weight-decay", "learning rate": "learning-rate",
    "strength schedule": "schedule", "optimizer state": "switch-state", "start point": "start",
    "teacher": "teacher-weight", "LayerNorm": "norm", "activation bits": "activation-bits",
    "weight bits": "weight-bits", "scale": "scale", "layer": "layer", "measure": "measure",
    "epochs": "epochs", "width": "width",
}  # fmt: skip


def test_all_that_is_asked_for_is_there():
    names = [factor.name for factor in FACTORS]
    assert set(ASKED.values()) <= set(names)
    assert len(set(names)) == len(names)
    assert any(factor.pair for factor in FACTORS)


@pytest.mark.parametrize("factor", FACTORS, ids=lambda factor: factor.name)
def test_every_level_can_be_built(factor, small):
    cells = plan.plan(factor, small)
    assert {cell.level for cell in cells} == {level.label for level in factor.levels}
    assert {cell.model for cell in cells} == set(plan.MODELS)
    for cell in cells:
        by_precision = {spec.precision: spec for spec in cell.specs}
        spec, full = by_precision[cell.precision], by_precision["fp32"]
        recipe = Recipe.from_dict(spec.recipe)
        assert full.recipe == recipe.plain().to_record()
        quant = None if spec.quant is None else QuantConfig.from_dict(spec.quant)
        assert (quant is None) == (cell.precision in FULL)
        build_model(cell.model, 16, 3, recipe, quant)


@pytest.mark.parametrize("factor", FACTORS, ids=lambda factor: factor.name)
def test_levels_and_lines_differ(factor, small):
    runs = {}
    for cell in plan.plan(factor, small):
        if cell.precision not in FULL:
            keys = [spec.key for spec in cell.specs if spec.precision == cell.precision]
            runs.setdefault((cell.line, cell.level), []).extend(keys)
    places = list(runs)
    assert all(runs[a] != runs[b] for a in places for b in places if a != b)


@pytest.mark.parametrize(
    "factor", [each for each in FACTORS if each.usual], ids=lambda factor: factor.name
)
def test_the_usual_level_is_that_of_the_base(factor, data_root):
    study = plan.Study(datasets=("Cora",), seeds=(0,), root=data_root)
    plain = [line.label for line in factor.lines if not (line.recipe or line.parts)]
    plain = [label for label in plain if label not in ("distill", "5-bit")]
    cells = [
        cell
        for cell in plan.plan(factor, study)
        if cell.level == factor.usual and cell.line in plain[:1] and cell.precision not in FULL
    ]
    for cell in cells:
        (spec,) = (spec for spec in cell.specs if spec.precision == cell.precision)
        assert spec.recipe == recipe_for(cell.model, "Cora", factor.base).to_record()
        assert spec.quant == quant_for(factor.base).to_dict()


def test_names():
    assert factors_named(None) == list(FACTORS)
    assert [factor.name for factor in factors_named(["layer", "layer"])] == ["layer"]
    with pytest.raises(ValueError, match="No factor is called 'luck'; there are weight-decay, "):
        factors_named(["luck"])


def test_findings_are_tested_by_factors_that_exist():
    names = {factor.name for factor in FACTORS}
    assert all(finding.factors and set(finding.factors) <= names for finding in FINDINGS)


def test_readings_are_of_what_exists():
    text = (Path(factors.__file__).parent / "readings.md").read_text()
    names = ["summary", *(each.name for each in (*FINDINGS, *FACTORS))]
    assert list(page.read_readings(text)) == names
