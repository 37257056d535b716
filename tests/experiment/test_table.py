import io

import pytest
from rich.console import Console

from bitgnn.experiment.rows import rows_from_records
from bitgnn.experiment.table import ComparisonTable


def render(rows, width=100, **kw):
    console = Console(width=width, file=io.StringIO(), **kw)
    console.print(ComparisonTable(rows))
    return console.file.getvalue()


def line_of(text, precision):
    (line,) = [line for line in text.splitlines() if f" {precision} " in line and "KiB" in line]
    return line


@pytest.fixture
def rows(records):
    full, absmean, absmedian = rows_from_records(records())
    full.update(mean=81.88, sd=0.62)
    absmean.update(mean=81.04, sd=0.68, diff_mean=-0.83, diff_low=-1.21, diff_high=-0.45)
    absmedian.update(diff_mean=-0.40, diff_low=-1.00, diff_high=0.20)
    return [full, absmean, absmedian]


@pytest.mark.parametrize("width", [100, 80])
def test_a_row_is_one_line(rows, width):
    text = render(rows, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.startswith("Cora  public split, seeds 0–9\n")
    full, absmean = line_of(text, "32-bit"), line_of(text, "absmean")
    assert full.split() == ["gcn", "32-bit", "81.88", "±", "0.62", "90.0", "KiB", "0", "63.7", "M"]
    for shown in ("81.04 ± 0.68", "−0.83 [−1.21, −0.45]", "5.63 KiB", "31 %", "62.4 M", "1.27 M"):
        assert shown in absmean, shown


@pytest.mark.parametrize("width", [100, 80])
def test_every_model_and_precision_is_there(records, width):
    models = ("gcn", "sage", "gat", "sgc", "mlp")
    rows = rows_from_records(records(("Cora", "PubMed"), models, diverged=[("absmean", 3)]))
    text = render(rows, width)
    assert max(map(len, text.splitlines())) <= width
    lines = [line.split() for line in text.splitlines() if "iB" in line]
    names = [line[: 2 if line[0] in models else 1] for line in lines]
    assert names == [[m, "32-bit"] if p == "32-bit" else [p]
                     for m in models * 2 for p in ("32-bit", "absmean", "absmedian")]  # fmt: skip
    for row, line in zip(rows, lines, strict=True):
        assert f"{row['mean']:.2f}" in line
        assert (f"{row['sd']:.2f}†" if row["diverged"] else f"{row['sd']:.2f}") in line


def test_a_narrow_terminal_moves_the_interval_down(rows):
    text = render(rows, width=70)
    absmean = line_of(text, "absmean")
    below = text.splitlines()[text.splitlines().index(absmean) + 1]
    assert "−0.83" in absmean
    assert below.strip() == "[−1.21, −0.45]"
    assert "1.27 M" in absmean


def test_blocks_share_their_columns(records):
    text = render(rows_from_records(records(("Cora", "PubMed"), ("gcn", "sage"))))
    lines = [line for line in text.splitlines() if " absmean " in line]
    assert len(lines) == 4
    assert len({line.index("absmean") for line in lines}) == 1
    assert len({line.index("±") for line in lines}) == 1
    assert text.count("public split") == 2


def test_an_interval_that_excludes_zero_is_bold(rows):
    text = render(rows, force_terminal=True, color_system="standard")
    assert "\x1b[1m" in line_of(text, "absmean")
    assert "\x1b[1m" not in line_of(text, "absmedian")


def test_diverged_seeds_are_said_aloud(records):
    text = render(rows_from_records(records(diverged=[("absmean", 3)])))
    assert "†" in line_of(text, "absmean")
    assert "†" not in line_of(text, "absmedian")
    assert "! Cora gcn absmean: seed 3 of 10 diverged; the mean is over the other 9." in text


def test_two_recipes_stand_in_two_blocks(records):
    rows = rows_from_records(records(seeds=[0]) + records(seeds=[0, 1], lr=0.1))
    text = render(rows)
    assert "Cora  public split, seed 0, lr=0.01\n" in text
    assert "Cora  public split, seeds 0, 1, lr=0.1\n" in text


def test_a_ternary_row_stands_with_its_32_bit_partner(records):
    rows = rows_from_records(records() + records(precisions=("fp32", "absmean"), lr=0.1))
    text = render(rows)
    assert text.count("Cora  ") == 2
    first, second = text.split("Cora  ")[1:]
    assert [p in first for p in ("32-bit", "absmean", "absmedian")] == [True] * 3
    assert [f" {p} " in second for p in ("32-bit", "absmean", "absmedian")] == [True, True, False]


def test_the_split_is_named_once(records):
    public, random = records(seeds=[0]), records(seeds=[0])
    for each in random:
        each["spec"] = {**each["spec"], "split_kind": "random"}
    text = render(rows_from_records(public + random))
    assert "Cora  public split, seed 0\n" in text
    assert "Cora  random split, seed 0\n" in text


def test_names_are_not_read_as_markup(records):
    rows = rows_from_records(records(seeds=[0]))
    for row in rows:
        row["dataset"] = "[red]Cora[/red]"
    assert "[red]Cora[/red]" in render(rows)


def test_metric(rows):
    for row in rows:
        row["metric"] = "rocauc"
    assert "ROC AUC, %" in render(rows)


DISTILL = {"teacher": "same", "teacher_weight": 20.0}


@pytest.fixture
def several(records):
    r"""Two recipes, one of which has a teacher."""
    given = records(precisions=("fp32", "fp32-distilled", "absmean"), **DISTILL)
    rows = rows_from_records(given + records(precisions=["absmean"], width=2))
    for row, name in zip(rows, ("default", "distill", "distill+channel", "wide2"), strict=True):
        row["recipe_name"] = name
    return rows


def test_difference_to_the_distilled_row(several):
    text = render(several, width=120)
    assert "to distilled" in text
    assert "32-bit distilled: 32-bit with the same teacher." in text
    lines = [line for line in text.splitlines() if "KiB" in line]
    assert len(lines) == 4
    assert [line.count("[") for line in lines] == [0, 1, 2, 1]
    assert f"{several[2]['diff_distilled_mean']:+.2f}".replace("-", "−") in lines[2]


def test_recipes_of_one_block_have_names(several):
    text = render(several, width=120)
    assert text.count("Cora  ") == 1
    lines = [line.split() for line in text.splitlines() if "KiB" in line]
    assert lines[1][:2] == ["32-bit", "distilled"]
    assert lines[2][:2] == ["absmean", "distill+channel"]
    assert lines[3][0] == "wide2"  # The precision stands above.


@pytest.mark.parametrize("width", [120, 100, 80, 60])
def test_nothing_is_cut_off(several, width):
    text = render(several, width)
    assert max(map(len, text.splitlines())) <= width
    flat = "".join("".join(line.split()) for line in text.splitlines())
    assert "…" not in flat
    if width >= 80:  # Words stay whole.
        for row in several:
            assert f"{row['mean']:.2f}" in text
            assert text.count("KiB") == 4
            for to in ("diff", "diff_distilled"):
                if row[f"{to}_mean"] is not None:
                    assert f"{row[f'{to}_mean']:+.2f}".replace("-", "−") in text


def test_without_teachers_and_recipes_the_table_is_as_narrow_as_before(records):
    text = render(rows_from_records(records()))
    assert "distilled" not in text
    assert text.splitlines()[2].split() == ["accuracy,", "%", "to", "32-bit", "Weights", "Zeros",
                                            "ops", "ops"]  # fmt: skip
