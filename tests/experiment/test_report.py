import base64
import csv
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from bitgnn.experiment import report
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.complete import Failure
from bitgnn.experiment.report import write_report
from bitgnn.experiment.rows import rows_from_records


class Page(HTMLParser):
    r"""Collects tags and text, and checks that every tag is closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(source)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch):
    monkeypatch.setattr(report, "DPI", 30)


@pytest.fixture
def results(records):
    given = records(models=("gcn", "mlp"), seeds=range(3), diverged=[("absmean", 1)])
    rows = rows_from_records(given)
    for row in rows:
        row["command"] = f"bitgnn compare --model {row['model']} --precision {row['precision']}"
    return SimpleNamespace(rows=rows, records=given)


def test_failures_are_named(results, tmp_path):
    specs = build_specs("Digits", "gcn", 1, precision="fp32")
    failures = [Failure(spec, "its process was killed 3 times in a row") for spec in specs]
    page = Page(write_report(results, tmp_path, failures=failures).read_text())
    assert (
        "Digits gcn fp32 seed 0 failed: its process was killed 3 times in a row; the same command "
        "tries it again."
    ) in page.text


def test_report(results, tmp_path):
    path = write_report(results, tmp_path / "new" / "out")
    assert path == tmp_path / "new" / "out" / "report.html"
    page = Page(path.read_text())
    assert "1.58-bit and 32-bit gcn, mlp on Cora" in page.text
    for row in results.rows:
        assert f"{row['mean']:.2f} ± {row['sd']:.2f}" in page.text
        assert row["checksum"] in page.text
    for shown in (
        "Cora gcn absmean: seed 1 of 3 diverged; the mean is over the other 2.",
        "weight_decay=0.0005", "schedule.kind=constant", "activation_bits=8", "2.13.0+cpu",
        "0123abc", "2025-11-22T04:00:00+00:00 – 2025-11-22T04:02:00+00:00",
        "bitgnn compare --model gcn --precision absmean",
    ):  # fmt: skip
        assert shown in page.text, shown
    assert "--precision fp32" not in page.text


def test_page_needs_nothing_from_elsewhere(results, tmp_path):
    path = write_report(results, tmp_path)
    page = Page(path.read_text())
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|url\(", path.read_text())
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert [link for link in links if link.endswith(".png")] == [
        "cora-memory.png", "cora-gcn-paired.png", "cora-gcn-curves.png", "cora-mlp-paired.png",
        "cora-mlp-curves.png",
    ]  # fmt: skip
    files = [(tmp_path / link).read_bytes() for link in links if link.endswith(".png")]
    embedded = [base64.b64decode(image["src"].partition("base64,")[2]) for image in images]
    assert embedded == files
    assert all(file.startswith(b"\x89PNG") for file in files)
    assert all(image["alt"] for image in images)
    assert {file.name for file in tmp_path.iterdir()} == {*links, "report.html"}


def test_rows_as_data(results, tmp_path):
    write_report(results, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results.rows
    with open(tmp_path / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    for line, row in zip(lines, results.rows, strict=True):
        assert list(line) == list(row)
        assert float(line["mean"]) == row["mean"]
        assert line["seeds"] == "0 1 2"
        assert json.loads(line["recipe"]) == row["recipe"]
    assert lines[0]["diff_mean"] == ""
    assert lines[1]["accuracies"].split()[1] == "nan"


def test_what_is_given_is_escaped(results, tmp_path):
    evil = "<script>alert('&')</script>"
    for row in results.rows:
        row["recipe"]["act"] = evil
        row["command"] = evil
        row["dataset"] = evil
    for record in results.records:
        record["spec"]["dataset"] = evil
        record["passport"]["machine"] = evil
    path = write_report(results, tmp_path, title=evil)
    page = Page(path.read_text())
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(evil) > 5
    assert (tmp_path / "script-alert-script-memory.png").exists()


def test_other_recipes_have_figures_of_their_own(records, tmp_path):
    given = records(seeds=[0, 1]) + records(seeds=[0, 1], lr=0.1)
    path = write_report(SimpleNamespace(rows=rows_from_records(given), records=given), tmp_path)
    page = Page(path.read_text())
    assert "Cora gcn (lr=0.01): training ( cora-gcn-curves.png )" in page.text
    assert "Cora gcn (lr=0.1): training ( cora-gcn-curves-2.png )" in page.text
    assert page.text.count("lr=0.1 ") >= 3  # by each row


def test_one_seed_and_no_commands(records, tmp_path):
    given = records(seeds=[0])
    path = write_report(SimpleNamespace(rows=rows_from_records(given), records=given), tmp_path)
    text = Page(path.read_text()).text
    assert "one pair of runs gives no interval" in text
    assert "How to reproduce it" not in text


def test_a_second_report_replaces_the_first(results, tmp_path):
    write_report(results, tmp_path, title="First")
    path = write_report(results, tmp_path, title="Second")
    assert "Second" in path.read_text()
    assert "First" not in path.read_text()


def test_errors(results, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Cannot write the report to '.*file': File exists"):
        write_report(results, tmp_path / "file")
    with pytest.raises(ValueError, match="no rows"):
        write_report(SimpleNamespace(rows=[], records=[]), tmp_path)


def test_teachers_and_recipes(records, tmp_path):
    given = records(
        seeds=range(3), precisions=("fp32", "fp32-distilled", "absmean"), teacher="same"
    )
    given += records(seeds=range(3), precisions=["absmean"], width=2)
    rows = rows_from_records(given)
    for row in rows:
        row["command"] = f"bitgnn compare --precision {row['precision']} {row['recipe']}"
    path = write_report(SimpleNamespace(rows=rows, records=given), tmp_path)
    page = Page(path.read_text())
    distilled = rows[2]
    assert "Difference to distilled" in page.text
    assert f"{distilled['diff_distilled_mean']:+.2f}".replace("-", "−") in page.text
    assert "Cora gcn 32-bit distilled, absmean" in page.text  # one recipe, that of both
    # The commands of the two ternary rows give the 32-bit rows as well.
    assert page.text.count("bitgnn compare --precision absmean") == 2
    assert "bitgnn compare --precision fp32" not in page.text
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert {"cora-gcn-paired.png", "cora-gcn-paired-2.png"} <= set(links)


def test_without_teachers_there_is_no_second_difference(results, tmp_path):
    assert "distilled" not in Page(write_report(results, tmp_path).read_text()).text


def test_records_without_curves(records, tmp_path):
    given = [{**record, "curves": {}} for record in records(seeds=range(2))]
    path = write_report(SimpleNamespace(rows=rows_from_records(given), records=given), tmp_path)
    assert "training" not in Page(path.read_text()).text
    assert not list(tmp_path.glob("*curves*"))
