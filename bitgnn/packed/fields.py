r"""The values that a field of a packed model's program may have: type and range. Booleans and NaN
are no numbers, and of integers and floats one does not stand for the other, but that an integer may
be written where a float is meant (:func:`bitgnn.packed.validate.as_floats`)."""

import math
from dataclasses import dataclass
from typing import Any, Protocol


class Field(Protocol):
    """The values that are allowed; as a string, these in words."""

    def allows(self, value: Any) -> bool:
        """Whether a value is allowed."""


@dataclass(frozen=True)
class Number:
    r"""A finite number from `low` to `high`: a float, or an integer that a float holds exactly.

    Args:
        low (float): The least number.
        high (float): The largest.
        below (bool, optional): Whether the largest is itself not allowed. (default: :obj:`False`)
    """

    low: float
    high: float
    below: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a value is such a number."""
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        if not self.low <= value <= self.high:  # NaN is not
            return False
        return float(value) == value and not (self.below and value == self.high)

    def __str__(self) -> str:
        to = "to below" if self.below else "to"
        return f"a number from {self.low:g} {to} {self.high:g} that a float holds"


@dataclass(frozen=True)
class Integer:
    """An integer from `low` to `high`."""

    low: int
    high: int

    def allows(self, value: Any) -> bool:
        """Whether a value is such an integer."""
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return is_integer and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"an integer from {self.low} to {self.high}"


@dataclass(frozen=True)
class Choice:
    """One of some values, and of their types: neither -1.0 nor true is the integer."""

    values: tuple[Any, ...]

    def allows(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return any(type(value) is type(each) and value == each for each in self.values)

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.values))}"


@dataclass(frozen=True)
class Flag:
    """A boolean."""

    def allows(self, value: Any) -> bool:
        """Whether a value is a boolean."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Text:
    """A string."""

    def allows(self, value: Any) -> bool:
        """Whether a value is a string."""
        return isinstance(value, str)

    def __str__(self) -> str:
        return "a string"


@dataclass(frozen=True)
class Object:
    """A JSON object; with `or_null`, or null."""

    or_null: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a value is an object."""
        return isinstance(value, dict) or (self.or_null and value is None)

    def __str__(self) -> str:
        return "an object" + (" or null" * self.or_null)


@dataclass(frozen=True)
class ListOf:
    r"""A list of some values, `least` to `most` of them.

    Args:
        each (Field): What each may be.
        least (int, optional): The least number of values. (default: :obj:`0`)
        most (int, optional): The largest. (default: :obj:`None`, any)
        distinct (bool, optional): Whether no value may occur twice. (default: :obj:`False`)
    """

    each: Field
    least: int = 0
    most: int | None = None
    distinct: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a value is such a list, or a tuple, which JSON does not know."""
        if not isinstance(value, (list, tuple)) or len(value) < self.least:
            return False
        if len(value) > (math.inf if self.most is None else self.most):
            return False
        return all(map(self.each.allows, value)) and not (
            self.distinct and len(set(value)) < len(value)
        )

    def __str__(self) -> str:
        return f"a list of which each is {self.each}" + (", none twice" * self.distinct)


def shown(value: Any) -> str:
    r"""Returns a value as errors show it: not longer than a line.

    Args:
        value (Any): The value, from a file that may hold anything.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Integers of thousands of digits have no decimal form.
        return f"{type(value).__name__} of great size"
    return text if len(text) <= 80 else text[:77] + "..."
