"""From records (one a run) to rows (one a data set, model and precision)."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bitgnn.experiment.statistics import pair_by_seed, paired_difference, summary

Record = dict[str, Any]
Row = dict[str, Any]

PRECISIONS = ("fp32", "absmean", "absmedian")


def rows_from_records(records: Iterable[Record]) -> list[Row]:
    r"""Pools the seeds of each configuration into one row.

    Runs are pooled only if nothing but the seed differs. A row is paired with the 32-bit row of
    the same data, split, model and recipe. :obj:`accuracies` runs parallel to :obj:`seeds` and
    holds :obj:`None` for the seeds listed in :obj:`diverged`; the mean is over the others.

    The configurations keep the order in which they first appear, the 32-bit row leads each.
    """
    configurations = group_by(records, lambda record: _canonical(_without(record["spec"], "seed")))
    arms = group_by(map(_row, configurations), arm)
    for rows in arms:
        rows.sort(key=lambda row: precision_order(row["precision"]))
        baseline = next((row for row in rows if row["precision"] == "fp32"), None)
        for row in rows:
            _add_difference(row, None if row is baseline else baseline)
    return [row for rows in arms for row in rows]


def arm(row: Row) -> str:
    r"""Returns a key that is equal for the rows which share all but the precision."""
    return _canonical({name: row[name] for name in _ARM})


def families(rows: Sequence[Row]) -> list[list[Row]]:
    r"""Splits rows into what belongs in one figure: the 32-bit row of an :func:`arm` with its
    ternary rows, those that differ in more than the measure apart.
    """
    found = []
    for sides in group_by(rows, arm):
        baseline = [row for row in sides if row["precision"] == "fp32"]
        ternary = [row for row in sides if row["precision"] != "fp32"]
        kinds = group_by(ternary, lambda row: _canonical(_without(row["quant"], "weight_measure")))
        found += [baseline + kind for kind in kinds] or [baseline]
    return found


def runs_of(rows: Sequence[Row], records: Iterable[Record]) -> list[Record]:
    r"""Returns the records that were pooled into the given rows."""
    wanted = {_canonical({name: row[name] for name in _CONFIGURATION}) for row in rows}

    def configuration(spec: dict[str, Any]) -> str:
        named = {**spec, "split": spec["split_kind"]}
        return _canonical({name: named[name] for name in _CONFIGURATION})

    return [record for record in records if configuration(record["spec"]) in wanted]


def group_by(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    r"""Groups rows by a key, in the order in which the keys first appear."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def precision_order(precision: str) -> tuple[int, str]:
    r"""Sorts 32-bit first, then absmean, absmedian, then the others by name."""
    known = PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS)
    return known, precision


def variants(rows: Sequence[Row]) -> list[str]:
    r"""Tells apart the rows that share data set, model and precision: for each row the settings
    in which it differs from such twins, as :obj:`"lr=0.01, split=random"`; else :obj:`""`.

    In data, split and recipe it is set against all precisions, so that a 32-bit row and the
    ternary rows that are paired with it have the same label.
    """
    arms = [
        flatten({"split": row["split"], "data": row["checksum"][:8], **row["recipe"]})
        for row in rows
    ]
    quants = [flatten({"quant": row["quant"] or {}}) for row in rows]
    labels = []
    for i, row in enumerate(rows):
        siblings = [
            j for j, other in enumerate(rows)
            if (other["dataset"], other["model"]) == (row["dataset"], row["model"])
        ]  # fmt: skip
        twins = [j for j in siblings if rows[j]["precision"] == row["precision"]]
        label = _differing(arms[i], [arms[j] for j in siblings])
        label += _differing(quants[i], [quants[j] for j in twins])
        labels.append(", ".join(label))
    return labels


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    r"""Returns nested settings as one level with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


_ARM = ("dataset", "split", "checksum", "model", "recipe")
_CONFIGURATION = (*_ARM, "precision", "quant")


def _row(group: list[Record]) -> Row:
    by_seed = {record["spec"]["seed"]: record for record in reversed(group)}  # the first one stays
    seeds = sorted(by_seed)
    accuracies = [None if by_seed[s]["diverged"] else by_seed[s]["test"] for s in seeds]
    finished = [accuracy for accuracy in accuracies if accuracy is not None]
    mean, sd = summary(finished)
    record = group[0]
    spec, cost = record["spec"], record["cost"]
    zeros = [by_seed[s]["cost"]["zeros"] for s, a in zip(seeds, accuracies, strict=True)
             if a is not None and by_seed[s]["cost"]["zeros"] is not None]  # fmt: skip
    return {
        "dataset": spec["dataset"],
        "model": spec["model"],
        "precision": spec["precision"],
        "metric": record["metric"],
        "split": spec["split_kind"],
        "checksum": spec["checksum"],
        "seeds": seeds,
        "accuracies": accuracies,
        "diverged": [s for s, a in zip(seeds, accuracies, strict=True) if a is None],
        "mean": mean,
        "sd": sd,
        "weight_bytes": cost["weight_bytes"],
        "weight_bytes_fp32": cost["weight_bytes_fp32"],
        "zeros": summary(zeros)[0],
        "int_ops": cost["int_ops"],
        "float_ops": cost["float_ops"],
        "quant": spec["quant"],
        "recipe": spec["recipe"],
    }


def _add_difference(row: Row, baseline: Row | None) -> None:
    mine: list[float] = []
    theirs: list[float] = []
    if baseline is not None:
        mine, theirs = pair_by_seed(
            dict(zip(row["seeds"], row["accuracies"], strict=True)),
            dict(zip(baseline["seeds"], baseline["accuracies"], strict=True)),
        )
    row["diff_mean"], row["diff_low"], row["diff_high"] = paired_difference(mine, theirs)
    row["pairs"] = len(mine)


def _differing(mine: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{name}={value}"
        for name, value in mine.items()
        if any(other.get(name) != value for other in others)
    ]


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
