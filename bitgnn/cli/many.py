from collections.abc import Collection, Sequence
from typing import Any

from typer.core import TyperCommand


class ManyValues(TyperCommand):
    """A command whose repeatable options take all words that follow: :obj:`--model gcn sage` is
    :obj:`--model gcn --model sage`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        many = {
            name for param in self.params if getattr(param, "multiple", False)
            for name in param.opts
        }  # fmt: skip
        return super().parse_args(ctx, repeat_options(args, many))


def repeat_options(args: Sequence[str], many: Collection[str]) -> list[str]:
    """Repeats an option before every value but its first.

    >>> repeat_options(["--model", "gcn", "sage", "--seeds", "3"], {"--model"})
    ['--model', 'gcn', '--model', 'sage', '--seeds', '3']

    Args:
        args (list[str]): The words of a command line.
        many (set[str]): The options that take many values.
    """
    words: list[str] = []
    option, has_value = "", False
    for word in args:
        if word.startswith("-"):
            option, equals, _ = word.partition("=")
            has_value = bool(equals)
            words.append(word)
        else:
            words += [option, word] if option in many and has_value else [word]
            has_value = True
    return words
