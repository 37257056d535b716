import json
from dataclasses import replace

import pytest

from bitgnn.experiment import RunSpec

SPEC = RunSpec("Cora", "public", "00", "gcn", "fp32", None, {"b": 1.0, "a": None}, 3)
TEACHER = {"model": "gat", "recipe": {"lr": 0.1}}


def test_key_is_the_same_everywhere():
    assert SPEC.key == "61c4a21c22e1be0e61981245f75fdb8d5ed29f02eb3964234e295f39537cd362"
    assert RunSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))).key == SPEC.key
    assert replace(SPEC, recipe={"a": None, "b": 1.0}).key == SPEC.key


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "CiteSeer"},
        {"split_kind": "full"},
        {"checksum": "01"},
        {"model": "gat"},
        {"precision": "absmean"},
        {"quant": {}},
        {"recipe": {"lr": 0.2}},
        {"seed": 4},
        {"teacher": TEACHER},
    ],
)
def test_key_depends_on_every_field(change):
    assert replace(SPEC, **change).key != SPEC.key


def test_spec_as_text():
    assert str(replace(SPEC, seed=7)) == "Cora gcn fp32 seed 7"


def test_teacher_is_a_plain_run_of_the_same_data_and_seed():
    assert SPEC.teacher_spec() is None
    student = replace(SPEC, precision="absmean", quant={}, teacher=TEACHER)
    expected = RunSpec("Cora", "public", "00", "gat", "fp32", None, {"lr": 0.1}, 3)
    assert student.teacher_spec() == expected
    assert student.teacher_spec().key == expected.key
