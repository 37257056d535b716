import pytest

from benchmarks.accuracy_figure import differences_figure

MODELS = ("gcn", "mlp")


def make_rows(**changes):
    rows = []
    for dataset, shift in (("Cora", 0.0), ("CiteSeer", 5.0)):
        for model in MODELS:
            for precision in ("fp32", "fp32-distilled", "absmean", "absmedian"):
                ternary = not precision.startswith("fp32")
                row = {"dataset": dataset, "model": model, "precision": precision}
                for to, mean in (("diff", 1.0 + shift), ("diff_distilled", -0.5)):
                    for name, value in (("mean", 0.0), ("low", -0.25), ("high", 0.75)):
                        row[f"{to}_{name}"] = mean + value if ternary else None
                rows.append({**row, **(changes if ternary else {})})
    return rows


def drawn(ax):
    return [line for line in ax.lines if line.get_marker() in ("s", "^")]


def test_every_difference_has_its_place():
    figure = differences_figure(make_rows())
    cora, citeseer = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["Cora", "CiteSeer"]
    assert [label.get_text() for label in cora.get_yticklabels()] == ["GCN", "MLP"]
    assert [float(line.get_xdata()[0]) for line in drawn(citeseer)] == [6.0, -0.5] * 4
    places = [float(line.get_ydata()[0]) for line in drawn(cora)]
    assert len(set(places)) == 8
    assert [round(place) for place in places] == [0] * 4 + [1] * 4  # beside their model
    intervals = [list(bar.get_segments()[0][:, 0]) for bar in cora.collections]
    assert intervals == [[0.75, 1.75], [-0.75, 0.25]] * 4


@pytest.mark.parametrize(
    ("missing", "left"),
    [(("diff_low", "diff_high"), 8), (("diff_distilled_mean",), 4), (("diff_mean",), 4)],
)
def test_what_is_missing_is_not_drawn(missing, left):
    figure = differences_figure(make_rows(**dict.fromkeys(missing)))
    assert [len(drawn(ax)) for ax in figure.axes] == [left, left]
