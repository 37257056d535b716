import json

import numpy as np
import pytest

from bitgnn.experiment.rows import (
    arm_labels,
    families,
    flatten,
    own_labels,
    precision_order,
    rows_from_records,
    runs_of,
    variants,
)


def test_rows(records):
    rows = rows_from_records(records(("Cora", "PubMed"), ("mlp", "gcn"), seeds=range(4)))
    assert [(row["dataset"], row["model"], row["precision"]) for row in rows] == [
        (dataset, model, precision)
        for dataset in ("Cora", "PubMed")
        for model in ("mlp", "gcn")
        for precision in ("fp32", "absmean", "absmedian")
    ]
    full, absmean = rows[0], rows[1]
    assert full["diff_mean"] is full["diff_low"] is full["diff_high"] is None
    assert full["zeros"] is None
    assert absmean["seeds"] == [0, 1, 2, 3]
    assert absmean["mean"] == pytest.approx(np.mean(absmean["accuracies"]))
    assert absmean["sd"] == pytest.approx(np.std(absmean["accuracies"], ddof=1))
    assert absmean["diff_mean"] == pytest.approx(absmean["mean"] - full["mean"])
    assert absmean["diff_low"] < absmean["diff_mean"] < absmean["diff_high"]
    assert 0.31 <= absmean["zeros"] <= 0.32
    assert absmean["weight_bytes"] < absmean["weight_bytes_fp32"] == full["weight_bytes"]
    json.dumps(rows, allow_nan=False)


def test_rows_keep_the_contract_of_the_json_file(records):
    promised = {
        "dataset", "model", "precision", "accuracies", "mean", "sd", "diff_mean", "diff_low",
        "diff_high", "weight_bytes", "weight_bytes_fp32", "zeros", "int_ops", "float_ops", "seeds",
        "metric", "split", "diverged", "diff_distilled_mean", "diff_distilled_low",
        "diff_distilled_high", "recipe", "quant", "teacher",
    }  # fmt: skip
    for row in rows_from_records(records(seeds=[0, 1])):
        assert promised <= row.keys()


def test_no_records():
    assert rows_from_records([]) == []


def test_order_of_the_records_does_not_change_a_row(records):
    given = records(seeds=range(5))
    assert rows_from_records(given[::-1]) == rows_from_records(given)
    assert rows_from_records(given + given) == rows_from_records(given)


def test_seeds_are_paired_by_seed(records):
    full = records(precisions=["fp32"], seeds=[0, 1, 2, 3])
    ternary = records(precisions=["absmean"], seeds=[9, 3, 1])
    row = rows_from_records(full + ternary)[1]
    tests = {(r["spec"]["precision"], r["spec"]["seed"]): r["test"] for r in full + ternary}
    differences = [tests["absmean", seed] - tests["fp32", seed] for seed in (1, 3)]
    assert row["seeds"] == [1, 3, 9]
    assert row["pairs"] == 2
    assert row["diff_mean"] == pytest.approx(np.mean(differences))


def test_diverged_seeds_are_kept_in_sight(records):
    row = rows_from_records(records(seeds=range(4), diverged=[("absmean", 2)]))[1]
    assert row["diverged"] == [2]
    assert row["seeds"] == [0, 1, 2, 3]
    assert row["accuracies"][2] is None
    assert row["pairs"] == 3
    assert row["mean"] == pytest.approx(np.mean([row["accuracies"][i] for i in (0, 1, 3)]))


def test_a_diverged_32_bit_seed_leaves_its_partner_out_of_the_difference(records):
    given = records(seeds=range(4), diverged=[("fp32", 1)])
    full, row, _ = rows_from_records(given)
    assert full["diverged"] == [1]
    assert row["diverged"] == []
    assert row["pairs"] == 3
    assert row["mean"] == pytest.approx(np.mean(row["accuracies"]))
    pairs = [(row["accuracies"][s], full["accuracies"][s]) for s in (0, 2, 3)]
    assert row["diff_mean"] == pytest.approx(np.mean([a - b for a, b in pairs]))


def test_partners_with_the_same_recipe_have_the_same_label(records):
    given = records(seeds=[0]) + records(seeds=[0], precisions=("fp32", "absmean"), lr=0.1)
    rows = rows_from_records(given)
    labels = dict.fromkeys(variants(rows))
    assert list(labels) == ["lr=0.01", "lr=0.1"]
    assert variants(rows) == [f"lr={row['recipe']['lr']}" for row in rows]


def test_all_seeds_diverged(records):
    rows = rows_from_records(records(seeds=[0, 1], diverged=[("absmean", 0), ("absmean", 1)]))
    assert rows[1]["mean"] is rows[1]["sd"] is rows[1]["diff_mean"] is rows[1]["zeros"] is None
    assert rows[1]["pairs"] == 0


def test_one_seed_has_no_interval(records):
    full, row, _ = rows_from_records(records(seeds=[5]))
    assert row["sd"] is row["diff_low"] is row["diff_high"] is None
    assert row["diff_mean"] == pytest.approx(row["mean"] - full["mean"])


def test_other_recipes_and_splits_are_not_pooled(records):
    given = records(seeds=range(3)) + records(seeds=range(3), lr=0.1)
    moved = records(seeds=range(3))
    for each in moved:
        each["spec"] = {**each["spec"], "split_kind": "random"}
    rows = rows_from_records(given + moved)
    assert len(rows) == 9
    assert all(row["seeds"] == [0, 1, 2] for row in rows)
    assert variants(rows)[::3] == ["split=public, lr=0.01", "split=public, lr=0.1",
                                   "split=random, lr=0.01"]  # fmt: skip


def test_a_row_without_32_bit_partner_has_no_difference(records):
    given = records(precisions=["fp32"]) + records(precisions=["absmean"], lr=0.1)
    row = rows_from_records(given)[1]
    assert row["diff_mean"] is None
    assert row["pairs"] == 0


DISTILL = {"teacher": "same", "teacher_weight": 20.0}


def test_32_bit_row_is_shared_by_recipes_that_concern_only_the_ternary_side(records):
    changes = [{}, {"width": 2}, {"schedule": {"kind": "step", "start": 0.5, "end": 0.5}}]
    given = records(precisions=["fp32"], seeds=range(3))
    for change in changes:
        given += records(precisions=["absmean", "absmedian"], seeds=range(3), **change)
    rows = rows_from_records(given)
    assert [row["precision"] for row in rows] == ["fp32", *["absmean"] * 3, *["absmedian"] * 3]
    for row in rows[1:]:
        assert row["diff_mean"] == pytest.approx(row["mean"] - rows[0]["mean"])
    # In each precision the recipes have the same order.
    assert [row["recipe"] for row in rows[1:4]] == [row["recipe"] for row in rows[4:]]
    assert arm_labels(rows) == [""] * 7
    assert own_labels(rows)[:3] == [
        "",
        "schedule.kind=constant, schedule.start=0.0, schedule.end=1.0, width=1",
        "schedule.kind=constant, schedule.start=0.0, schedule.end=1.0, width=2",
    ]


def test_rows_with_a_teacher_are_paired_with_32_bit_of_the_same_teacher(records):
    precisions = ("fp32", "fp32-distilled", "absmean")
    given = records(precisions=precisions, seeds=range(4), **DISTILL)
    given += records(precisions=["fp32-distilled"], seeds=range(4), teacher="gat")
    given += records(precisions=["absmean"], seeds=range(4), width=2, **DISTILL)
    given += records(precisions=["absmean"], seeds=range(4))
    rows = rows_from_records(given)
    full, distilled, gat, *ternary = rows
    assert gat["recipe"]["teacher"] == "gat"
    assert gat["diff_distilled_mean"] is distilled["diff_distilled_mean"] is None
    for row in ternary[:2]:
        assert row["diff_distilled_mean"] == pytest.approx(row["mean"] - distilled["mean"])
        assert row["diff_distilled_low"] < row["diff_distilled_mean"] < row["diff_distilled_high"]
        assert row["diff_mean"] == pytest.approx(row["mean"] - full["mean"])
    assert ternary[2]["diff_distilled_mean"] is None
    families_of = [[rows.index(row) for row in sides] for sides in families(rows)]
    assert families_of == [[0, 1, 3], [0, 1, 4], [0, 5], [0, 2]]


def test_older_records_lack_fields_and_stand_with_the_others(records):
    older = records(precisions=["fp32"])
    newer = records(precisions=["absmean"], lr_decay=None, temperature=1.0)
    full, ternary = rows_from_records(older + newer)
    assert ternary["diff_mean"] == pytest.approx(ternary["mean"] - full["mean"])


def test_names_of_recipes_tell_rows_apart(records):
    given = records(precisions=["fp32"]) + records(precisions=["absmean"])
    rows = rows_from_records(given + records(precisions=["absmean"], width=2))
    for row, name in zip(rows, ("default", "default", "wide2"), strict=True):
        row["recipe_name"] = name
    assert own_labels(rows) == ["", "default", "wide2"]
    rows[2]["recipe_name"] = "default"  # does not tell
    assert own_labels(rows) == ["", "width=1", "width=2"]


def test_families_and_their_runs(records):
    given = records(seeds=range(2))
    four_bit = records(seeds=range(2), precisions=["absmean"])
    for each in four_bit:
        each["spec"] = {**each["spec"], "quant": {**each["spec"]["quant"], "activation_bits": 4}}
    rows = rows_from_records(given + four_bit)
    first, second = families(rows)
    assert [row["precision"] for row in first] == ["fp32", "absmean", "absmedian"]
    assert [row["precision"] for row in second] == ["fp32", "absmean"]
    assert runs_of(first, given + four_bit) == given
    assert runs_of(second[1:], given + four_bit) == four_bit
    assert variants(rows) == ["", "quant.activation_bits=8", "quant.activation_bits=4", ""]


def test_precision_order():
    names = ["absmax", "absmedian", "fp32-distilled", "fp32", "absmean"]
    assert sorted(names, key=precision_order) == [
        "fp32", "fp32-distilled", "absmean", "absmedian", "absmax"
    ]  # fmt: skip


def test_flatten():
    assert flatten({"a": 1, "b": {"c": {"d": 2}, "e": None}}) == {"a": 1, "b.c.d": 2, "b.e": None}
