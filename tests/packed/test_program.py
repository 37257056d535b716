import pytest

from bitgnn.packed.program import Edges, Program, Step, readers, types

STEPS = (
    Step("linear", (0,)),
    Step("aggregate", (1,), edges=Edges()),
    Step("add", (2, 0)),
    Step("act", (3,), attrs={"kind": "relu"}),
)


def test_readers_of_each_value():
    assert readers(STEPS) == [[0, 2], [1], [2], [3], []]
    assert readers([]) == [[]]


def test_what_a_program_reads():
    assert not Program(STEPS[:1]).reads_edges
    assert Program(STEPS).reads_edges and not Program(STEPS).reads_weights
    weighted = STEPS[1].replace(edges=Edges(weighted=True))
    assert Program((STEPS[0], weighted)).reads_weights


def test_types_of_nodes():
    assert types(STEPS) == [""] * 5
    steps = (
        Step("pick", (0,), attrs={"nodes": "author"}),
        Step("pick", (0,), attrs={"nodes": "paper"}),
        Step("aggregate", (1,), edges=Edges(relation=("author", "writes", "paper"))),
        Step("act", (3,), attrs={"kind": "relu"}),
        Step("linear", (1,)),
    )
    assert types(steps) == ["", "author", "paper", "paper", "paper", "author"]
    with pytest.raises(ValueError, match=r"'it' reads nodes of types \['author', 'paper'\]"):
        types((*steps, Step("add", (1, 2), "it")))
    relation = ("author", "writes", "paper")
    with pytest.raises(ValueError, match=r"\['paper'\] over edges of type .'author', 'writes',"):
        types((*steps, Step("aggregate", (2,), edges=Edges(relation=relation))))
    assert types((*steps, Step("collect", (1, 2)))) is not None
    assert Program(steps).is_hetero and not Program(STEPS).is_hetero
    assert Program(steps).node_types == ["author", "paper"]
