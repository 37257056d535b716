"""A slice of ``make soak``."""

import pytest

from tests.soak.run import MOST_GROWTH, Report, soak

CALLS = 150


def test_threads_on_changing_graphs():
    report = soak(lambda calls, passed: calls < CALLS, every=0.1)
    assert report.calls >= CALLS and not report.wrong, report.wrong


@pytest.mark.parametrize(("leak", "grows"), [(0, False), (2**20, True)])
def test_growth_is_seen(leak, grows):
    memory = [(float(at), 2**30 + (2**24 if at > 10 else 0) + leak * at) for at in range(100)]
    assert (Report(memory=memory).growth() > MOST_GROWTH) == grows
