r"""Hyper-parameters as people write them on a command line: :obj:`"lr=0.005"`."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from bitgnn.quant import StrengthSchedule


def parse_settings(texts: Iterable[str], kind: type) -> dict[str, Any]:
    r"""Reads settings of a dataclass, such as :obj:`"lr=0.005"` or
    :obj:`"schedule=linear:0:0.5"`.

    Values get the type that they look like; whether they are allowed is for the dataclass to say.

    >>> from bitgnn.training import Recipe
    >>> parse_settings(["lr=0.005", "norm=none", "epochs=100"], Recipe)
    {'lr': 0.005, 'norm': None, 'epochs': 100}

    Args:
        texts (list[str]): The settings, each :obj:`name=value`.
        kind (type): The dataclass.

    Raises:
        ValueError: If a setting has no value, or :obj:`kind` no such field.
    """
    names = [field.name for field in fields(kind)]
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise ValueError(
                f"A setting is written name=value, such as {names[0]}=1 (got {text!r})"
            )
        if name not in names:
            raise ValueError(f"There is no setting {name!r}; there are {', '.join(names)}")
        settings[name] = _parse_value(name, value)
    return settings


def format_settings(values: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    r"""Writes where the fields of a dataclass differ from others; the inverse of
    :func:`parse_settings`.

    >>> format_settings({"lr": 0.005, "epochs": 100}, {"lr": 0.01, "epochs": 100})
    ['lr=0.005']

    Args:
        values (dict): The fields.
        base (dict): The fields that they are compared with.
    """
    return [
        f"{name}={_format_value(value)}" for name, value in values.items() if value != base[name]
    ]


def _parse_value(name: str, text: str) -> Any:
    if name == "schedule":
        return _parse_schedule(text)
    if text == "none" and name != "feature_norm":
        return None
    if text in ("true", "false"):
        return text == "true"
    if "," in text:
        return tuple(_parse_value(name, each) for each in text.split(","))
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _format_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{value['kind']}:{value['start']}:{value['end']}"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def _parse_schedule(text: str) -> StrengthSchedule:
    kind, *bounds = text.split(":")
    try:
        start, end = [*map(float, bounds), *(0.0, 0.5)[len(bounds) :]]
    except ValueError:
        raise ValueError(
            f"A schedule is written kind:start:end, such as linear:0:0.5 (got {text!r})"
        ) from None
    return StrengthSchedule(kind, start, end)  # type: ignore[arg-type]
