from bitgnn.data import available
from tests.data.ogb_files import write_ogb


def test_datasets(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_DATA", str(tmp_path))
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path))
    found = cli("datasets")
    assert found.status == 0
    lines = {line.split()[0]: line.strip() for line in found.out.splitlines()}
    assert {info.name for info in available()} < set(lines)
    assert lines["Cora"].split()[1:6] == ["Planetoid", "2708", "10556", "1433", "7"]
    assert lines["Cora"].endswith("to download")
    assert lines["Digits"].endswith("built in")
    assert lines["ogbn-arxiv"].split()[1:6] == ["OGB", "169343", "2315598", "128", "40"]
    assert lines["ogbn-arxiv"].endswith("to fetch by hand")


def test_files_that_are_found(cli, data_root):
    lines = [line.strip() for line in cli(f"datasets --root {data_root}").out.splitlines()]
    assert any(line.startswith("Cora ") and line.endswith(str(data_root)) for line in lines)


def test_ogbs_files(cli, tmp_path):
    write_ogb("ogbn-mag", tmp_path / "root")
    lines = [line.strip() for line in cli(f"datasets --root {tmp_path}/root").out.splitlines()]
    assert any(line.startswith("ogbn-mag ") and line.endswith("root") for line in lines)
