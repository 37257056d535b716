import json

FAST = "--recipe scratch --set epochs=3 --workers 1"


def test_report_of_a_store(cli, tmp_path):
    cli(f"compare --dataset Digits --model sgc mlp --seeds 2 --json a.json {FAST}")
    found = cli("report --out again --json b.json")
    assert found.status == 0
    assert "0 runs trained now, 12 taken from the store" in found.out
    rows = {name: json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json")}
    assert sorted(map(str, rows["a.json"])) == sorted(map(str, rows["b.json"]))
    page = tmp_path / found.out.splitlines()[-1].removeprefix("Report: ")
    assert page.is_file()
    assert page.parent == tmp_path / "again"


def test_report_of_a_part(cli, tmp_path):
    cli(f"compare --dataset Digits --model sgc mlp --seeds 1 {FAST}")
    cli("report --model mlp --precision fp32 absmean --json part.json")
    rows = json.loads((tmp_path / "part.json").read_text())
    assert [(row["model"], row["precision"]) for row in rows] == [
        ("mlp", "fp32"),
        ("mlp", "absmean"),
    ]
