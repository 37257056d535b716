import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.cli.many import repeat_options

MANY = {"--model", "--set", "-m"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--model gcn", "--model gcn"),
        ("--model gcn sage mlp", "--model gcn --model sage --model mlp"),
        ("-m gcn sage --seeds 3", "-m gcn -m sage --seeds 3"),
        ("--model=gcn sage", "--model=gcn --model sage"),
        ("--set lr=1 epochs=2 --model a b", "--set lr=1 --set epochs=2 --model a --model b"),
        ("--model gcn --model sage", "--model gcn --model sage"),
        ("--model --seeds 3", "--model --seeds 3"),
        ("--seeds 3 4", "--seeds 3 4"),
        ("gcn sage", "gcn sage"),
    ],
)
def test_repeat_options(line, expected):
    assert repeat_options(line.split(), MANY) == expected.split()


@given(st.lists(st.sampled_from(["--model", "--seeds", "--set=x", "a", "b", "3"])))
def test_repeating_twice_changes_nothing(args):
    once = repeat_options(args, MANY)
    assert repeat_options(once, MANY) == once
    assert [word for word in once if word not in MANY] == [
        word for word in args if word not in MANY
    ]
