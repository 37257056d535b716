r"""What the record of a run has at the least."""

from typing import Any

from bitgnn.experiment.store import Store

# What every version has written, with the types that JSON gives; all else is optional.
_NUMBER = (int, float)
_NUMBER_OR_NONE = (int, float, type(None))
_FIELDS: dict[str, tuple[type, ...]] = {
    "key": (str,),
    "spec": (dict,),
    "metric": (str,),
    "test": _NUMBER_OR_NONE,
    "val": _NUMBER_OR_NONE,
    "epochs": (int,),
    "curves": (dict,),
    "seconds": _NUMBER,
    "diverged": (bool,),
    "cost": (dict,),
    "passport": (dict,),
    "spec.dataset": (str,),
    "spec.split_kind": (str,),
    "spec.checksum": (str,),
    "spec.model": (str,),
    "spec.precision": (str,),
    "spec.quant": (dict, type(None)),
    "spec.recipe": (dict,),
    "spec.seed": (int,),
    "cost.weight_bytes": (int,),
    "cost.weight_bytes_fp32": (int,),
    "cost.zeros": _NUMBER_OR_NONE,
    "cost.int_ops": _NUMBER_OR_NONE,
    "cost.float_ops": _NUMBER_OR_NONE,
}
_CURVES = {"loss", "val", "test"}  # or none, in a record that was exported


def check_record(record: Any) -> None:
    r"""Checks that a record, read from a file, has the fields that a run leaves.

    Args:
        record (dict): The record.

    Raises:
        ValueError: If one is missing or of another type.
    """
    for name, types in _FIELDS.items():
        *outer, last = name.split(".")
        place = record[outer[0]] if outer else record
        if not isinstance(place, dict) or last not in place:
            raise ValueError(f"it lacks '{name}'")
        # To Python, True is an integer.
        if not isinstance(place[last], types) or (
            isinstance(place[last], bool) and bool not in types
        ):
            raise ValueError(f"its '{name}' is {place[last]!r:.40}")
    unknown = [
        name for name in record["spec"] if f"spec.{name}" not in _FIELDS and name != "teacher"
    ]
    if unknown:
        raise ValueError(f"its 'spec' has a field '{unknown[0]}', which this version does not know")
    teacher = record["spec"].get("teacher")
    if teacher is not None and not (
        isinstance(teacher, dict)
        and isinstance(teacher.get("model"), str)
        and isinstance(teacher.get("recipe"), dict)
    ):
        raise ValueError(f"its 'spec.teacher' is {teacher!r:.40}, and no model with a recipe")
    if record["test"] is None and not record["diverged"]:
        raise ValueError("it has no test metric")
    if record["curves"] and set(record["curves"]) != _CURVES:
        raise ValueError(f"its curves are {', '.join(record['curves'])}")
    for name, curve in record["curves"].items():
        if not isinstance(curve, list) or not all(
            isinstance(each, _NUMBER_OR_NONE) for each in curve
        ):
            raise ValueError(f"its curve '{name}' is no list of numbers")


def runs_in(store: Store, **filters: Any) -> list[dict[str, Any]]:
    r"""Returns the records of a store that match; see :meth:`Store.records`.

    Args:
        store (Store): The store.
        **filters: As of :meth:`Store.records`.

    Raises:
        ValueError: If one of them is damaged.
    """
    return [_checked(record, store) for record in store.records(**filters)]


def run_in(store: Store, key: str) -> dict[str, Any] | None:
    r"""Returns the record of a run, :obj:`None` if a store lacks it.

    Args:
        store (Store): The store.
        key (str): The key of the run.

    Raises:
        ValueError: If it is damaged.
    """
    record = store.get(key)
    return None if record is None else _checked(record, store)


def _checked(record: dict[str, Any], store: Store) -> dict[str, Any]:
    try:
        check_record(record)
    except ValueError as error:
        raise store.damaged(record["key"], error) from None
    return record
