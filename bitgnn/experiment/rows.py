"""From records (one a run) to rows (one a data set, model and precision)."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from bitgnn.experiment.statistics import pair_by_seed, paired_difference, summary
from bitgnn.training.recipe import QUANTIZED, TEACHING, Recipe

Record = dict[str, Any]
Row = dict[str, Any]
T = TypeVar("T")

DISTILLED = "fp32-distilled"
PRECISIONS = ("fp32", DISTILLED, "absmean", "absmedian")
FULL = PRECISIONS[:2]  # those that quantize nothing


def rows_from_records(records: Iterable[Record]) -> list[Row]:
    r"""Pools the seeds of each configuration into one row.

    Runs are pooled only if nothing but the seed differs. A row is paired with the 32-bit row of
    the same data, split, model and recipe, as far as that concerns 32-bit runs
    (:meth:`Recipe.plain`), and a row with a teacher also with the 32-bit row of that teacher
    (:obj:`diff_distilled_mean` and so on). :obj:`accuracies` runs parallel to :obj:`seeds` and
    holds :obj:`None` for the seeds listed in :obj:`diverged`; the mean is over the others.

    The configurations keep the order in which they first appear, the 32-bit row leads each.
    """
    configurations = group_by(records, lambda record: _canonical(_without(record["spec"], "seed")))
    arms = group_by(map(_row, configurations), arm)
    for rows in arms:
        kinds = list(dict.fromkeys(map(_kind, rows)))
        rows.sort(key=lambda row: (precision_order(row["precision"]), kinds.index(_kind(row))))
        full = next((row for row in rows if row["precision"] == "fp32"), None)
        distilled = {_teaching(row): row for row in rows if row["precision"] == DISTILLED}
        for row in rows:
            _add_difference(row, "diff", full)
            _add_difference(row, "diff_distilled", distilled.get(_teaching(row)))
    return [row for rows in arms for row in rows]


def arm(row: Row) -> str:
    r"""Returns a key that is equal for the rows which are compared with the same 32-bit row."""
    return _canonical({**{name: row[name] for name in _ARM}, "recipe": plain_fields(row)})


def plain_fields(row: Row) -> dict[str, Any]:
    r"""Returns the recipe of the 32-bit row that a row is compared with, as fields."""
    return {**_DEFAULTS, **row["recipe"], **_NEUTRAL}


def families(rows: Sequence[Row]) -> list[list[Row]]:
    r"""Splits rows into what belongs in one figure: the 32-bit row of an :func:`arm` with its
    ternary rows, those that differ in more than the measure apart, and the 32-bit row of the
    same teacher with them.
    """
    found = []
    for sides in group_by(rows, arm):
        full = [row for row in sides if row["precision"] == "fp32"]
        kinds = group_by((row for row in sides if row["precision"] not in FULL), _kind)
        taught = [row for row in sides if row["precision"] == DISTILLED]
        for kind in kinds:
            found.append(full + [row for row in taught if _teaching(row) == _teaching(kind[0])])
            found[-1] += kind
        placed = {id(row) for family in found for row in family}
        found += [[*full, row] for row in taught if id(row) not in placed]
        found += [full] if not kinds and not taught else []
    return found


def runs_of(rows: Sequence[Row], records: Iterable[Record]) -> list[Record]:
    r"""Returns the records that were pooled into the given rows."""
    wanted = {_canonical({name: row[name] for name in _CONFIGURATION}) for row in rows}

    def configuration(spec: dict[str, Any]) -> str:
        named = {"teacher": None, **spec, "split": spec["split_kind"]}
        return _canonical({name: named[name] for name in _CONFIGURATION})

    return [record for record in records if configuration(record["spec"]) in wanted]


def group_by(rows: Iterable[T], key: Callable[[T], Any]) -> list[list[T]]:
    r"""Groups rows by a key, in the order in which the keys first appear."""
    groups: dict[Any, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def precision_order(precision: str) -> tuple[int, str]:
    r"""Sorts 32-bit first, distilled second, then absmean, absmedian, then the others by name."""
    known = PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS)
    return known, precision


def variants(rows: Sequence[Row]) -> list[str]:
    r"""Tells apart the rows that share data set, model and precision: for each row its label
    among the arms and within its arm, as :obj:`"lr=0.01, split=random, teacher=same"`; else
    :obj:`""`.
    """
    labels = zip(arm_labels(rows), own_labels(rows), strict=True)
    return [", ".join(label for label in both if label) for both in labels]


def arm_labels(rows: Sequence[Row]) -> list[str]:
    r"""Tells apart the arms of a data set and model: for each row in which data, split and fields
    of the 32-bit recipe its :func:`arm` differs from the others; else :obj:`""`.
    """
    arms = [
        flatten({"split": row["split"], "data": row["checksum"][:8], **plain_fields(row)})
        for row in rows
    ]
    places = [(row["dataset"], row["model"]) for row in rows]
    return _labels(arms, places)


def own_labels(rows: Sequence[Row]) -> list[str]:
    r"""Tells apart the rows of one :func:`arm` and precision: for each row the name of its recipe,
    or where that does not tell, the fields in which it differs; else :obj:`""`.
    """
    own = []
    for row in rows:
        parts = {"quant": row["quant"] or {}, "taught_by": row["teacher"] or {}}
        own.append(flatten({**parts, **_DEFAULTS, **row["recipe"]}))
    places = [(arm(row), row["precision"]) for row in rows]
    labels = _labels(own, places)
    for twins in group_by(range(len(rows)), places.__getitem__):
        names = [rows[index].get("recipe_name") or "" for index in twins]
        if len(twins) > 1 and "" not in names and len(set(names)) == len(names):
            for index, name in zip(twins, names, strict=True):
                labels[index] = name
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


_ARM = ("dataset", "split", "checksum", "model")
_CONFIGURATION = (*_ARM, "recipe", "precision", "quant", "teacher")
_DEFAULTS = Recipe().to_dict()  # of the fields that older records lack
_NEUTRAL = {name: _DEFAULTS[name] for name in (*QUANTIZED, *TEACHING)}


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
        "teacher": spec.get("teacher"),
    }


def _kind(row: Row) -> str:
    """Equal for rows that differ in the measure alone."""
    quant = _without(row["quant"] or {}, "weight_measure")
    return _canonical([quant, row["recipe"], row["teacher"]])


def _teaching(row: Row) -> str:
    """Equal for rows with the same teacher, which are taught in the same way."""
    recipe = {name: row["recipe"].get(name, _NEUTRAL[name]) for name in TEACHING}
    return _canonical([recipe, row["teacher"]])


def _add_difference(row: Row, name: str, baseline: Row | None) -> None:
    mine: list[float] = []
    theirs: list[float] = []
    if baseline is not None and baseline is not row:
        mine, theirs = pair_by_seed(
            dict(zip(row["seeds"], row["accuracies"], strict=True)),
            dict(zip(baseline["seeds"], baseline["accuracies"], strict=True)),
        )
    for bound, value in zip(("mean", "low", "high"), paired_difference(mine, theirs), strict=True):
        row[f"{name}_{bound}"] = value
    row[name.replace("diff", "pairs")] = len(mine)


def _labels(settings: Sequence[Mapping[str, Any]], places: Sequence[Any]) -> list[str]:
    """For each of several settings, where it differs from others of its place."""
    return [
        ", ".join(
            f"{name}={value}"
            for name, value in mine.items()
            if any(
                other.get(name) != value
                for other, its in zip(settings, places, strict=True)
                if its == place
            )
        )
        for mine, place in zip(settings, places, strict=True)
    ]


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
