from bitgnn.packed.program import Edges, Program, Step, readers

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
