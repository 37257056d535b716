import pytest

from bitgnn.experiment import Store
from bitgnn.experiment.record import check_record, run_in, runs_in


def change(record, name, *value):
    """Sets a field of a record, or deletes it."""
    *outer, last = name.split(".")
    place = record[outer[0]] if outer else record
    if value:
        place[last] = value[0]
    else:
        del place[last]


FIELDS = (
    "metric test val epochs curves seconds diverged cost passport spec.checksum spec.quant "
    "spec.recipe cost.weight_bytes cost.zeros"
).split()


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_missing(name, record):
    found = record()
    check_record(found)
    change(found, name)
    with pytest.raises(ValueError, match=f"^it lacks '{name}'$"):
        check_record(found)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("test", "high", "its 'test' is 'high'"),
        ("test", True, "its 'test' is True"),
        ("test", None, "it has no test metric"),
        ("diverged", 1, "its 'diverged' is 1"),
        ("cost", [1], r"its 'cost' is \[1\]"),
        ("spec.age", 1, "its 'spec' has a field 'age'"),
        ("spec.teacher", {"model": "gcn"}, "its 'spec.teacher' is"),
        ("curves", {"val": [1.0]}, "its curves are val"),
        ("curves", {"loss": [], "test": [], "val": 1.0}, "its curve 'val' is no list"),
        ("curves", {"loss": [], "test": [], "val": ["high"]}, "its curve 'val' is no list"),
    ],
)
def test_a_field_of_another_kind(name, value, problem, record):
    found = record()
    change(found, name, value)
    with pytest.raises(ValueError, match=f"^{problem}"):
        check_record(found)


def test_older_records_know_no_teacher(record):
    found = record()
    del found["spec"]["teacher"]
    check_record(found)


def test_the_message_names_the_store(tmp_path, record):
    path = tmp_path / "store.sqlite"
    damaged = record(seed=1)
    del damaged["cost"]
    with Store(path) as store:
        store.put_all([record(), damaged])
        assert run_in(store, record()["key"]) == record()
        assert run_in(store, "0") is None
        for read in (lambda: run_in(store, damaged["key"]), lambda: runs_in(store, dataset="Cora")):
            with pytest.raises(ValueError, match=rf"^'{path}' holds a damaged .* lacks 'cost'"):
                read()
        assert runs_in(store, seed=0) == [record()]
