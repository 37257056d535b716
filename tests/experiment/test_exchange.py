import gzip
import json

import pytest

from bitgnn.experiment import RunSpec, Store, export_records, import_records
from bitgnn.experiment.rows import rows_from_records


def keyed(records):
    for record in records:
        record["key"] = RunSpec.from_dict(record["spec"]).key
    return records


@pytest.fixture
def store(tmp_path, records):
    with Store(tmp_path / "store.sqlite") as store:
        store.put_all(keyed(records(seeds=range(3), diverged=[("absmean", 1)])))
        yield store


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz"])
def test_round_trip(store, tmp_path, kind):
    assert export_records(store, tmp_path / f"runs.{kind}") == 9
    with Store(tmp_path / "other.sqlite") as other:
        assert import_records(other, tmp_path / f"runs.{kind}") == 9
        assert import_records(other, tmp_path / f"runs.{kind}") == 0
        found = other.records()
        assert export_records(other, tmp_path / f"again.{kind}") == 9
    assert found == [{**record, "curves": {}} for record in store.records()]
    assert rows_from_records(found) == rows_from_records(store.records())
    again, first = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("again", "runs"))
    assert again == first


def test_compressed_file_is_the_other_one(store, tmp_path):
    for name in ("runs.jsonl", "runs.jsonl.gz"):
        export_records(store, tmp_path / name)
    plain, packed = ((tmp_path / name).read_bytes() for name in ("runs.jsonl", "runs.jsonl.gz"))
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 5


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"{}" + content])
def test_damaged_file(store, tmp_path, damage):
    path = tmp_path / "runs.jsonl.gz"
    export_records(store, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"runs.jsonl.gz' is damaged .*download it again"):
        import_records(store, path)


def test_some_records(store, tmp_path):
    keys = {record["key"] for record in store.records(precision="fp32")}
    assert export_records(store, tmp_path / "runs.jsonl", keys) == 3
    with Store(tmp_path / "other.sqlite") as other:
        import_records(other, tmp_path / "runs.jsonl")
        assert {record["key"] for record in other.records()} == keys


def test_a_record_that_is_there_stays(store, tmp_path):
    export_records(store, tmp_path / "runs.jsonl")
    assert import_records(store, tmp_path / "runs.jsonl") == 0
    assert all(record["curves"] for record in store.records())


def test_an_empty_store(tmp_path):
    with Store(tmp_path / "s") as store:
        assert export_records(store, tmp_path / "runs.jsonl") == 0
        assert import_records(store, tmp_path / "runs.jsonl") == 0


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"key": "00"}', '{"key": "00", "spec": {"a": 1}}', ""]
)
def test_what_is_no_record(store, tmp_path, line):
    path = tmp_path / "runs.jsonl"
    export_records(store, path)
    path.write_text(path.read_text() + line + "\n")
    with (
        Store(tmp_path / "other") as other,
        pytest.raises(ValueError, match=r"runs.jsonl', line 10 is no record of a run"),
    ):
        import_records(other, path)
    with Store(tmp_path / "other") as other:
        assert len(other) == 0


def test_records_of_another_version(store, tmp_path, monkeypatch):
    path = tmp_path / "runs.jsonl"
    export_records(store, path)
    monkeypatch.setattr("bitgnn.experiment.spec.RESULT_VERSION", 0)
    with pytest.raises(ValueError, match=r"line 1: Cora gcn .* by another version of bitgnn"):
        import_records(store, path)


def test_lines_can_be_told_apart_by_version_control(store, tmp_path):
    export_records(store, tmp_path / "runs.jsonl")
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert [json.loads(line)["spec"]["seed"] for line in lines] == [0, 1, 2] * 3
