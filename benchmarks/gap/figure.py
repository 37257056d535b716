"""One figure a factor, in panels that share their axes. A point is a mean over seeds, with its
95 % interval."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from benchmarks.gap.results import Found
from bitgnn.experiment.plots import style
from bitgnn.experiment.rows import Row
from bitgnn.experiment.statistics import paired_difference

# Okabe and Ito's palette, which colour-blind readers can tell apart; markers for all others.
STYLES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "P"),
)
PRECISIONS = {"32-bit": "fp32", "32-bit distilled": "fp32-distilled"}
WIDTH = 10.0
DODGE = 0.13  # between the points of one level, whose levels are 1 apart
LINEAR, LARGE = 2.0, 12.0  # points: where differences are as large as the second, what lies beyond
# the first is drawn on a log scale, so that a collapse leaves room for tenths of a point
STEPS = (-100, -50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50)
Value = tuple[float, float, float]  # a mean, and the bounds of its interval
LINE_HEIGHT = 0.16  # of a direct label, in inches


@dataclass(frozen=True)
class Series:
    """A line of a panel: its name, its numbers by level, its colour and marker."""

    name: str
    rows: dict[str, Row]
    color: str
    marker: str


@dataclass(frozen=True)
class Panel:
    """A panel: what stands above it and beside it, and its lines."""

    title: str
    side: str
    series: list[Series]


def draw(found: Found) -> Figure:
    """Draws what is known of a factor.

    With one line, a factor has a panel a data set, and a line a model there; with several lines
    it has a panel a data set and model.

    Args:
        found: What is known of it.

    Raises:
        ValueError: If nothing is known.
    """
    name, levels = found.factor.name, found.levels
    if not found.rows:
        raise ValueError(
            f"No run of '{name}' is finished: `python -m benchmarks.gap run {name}` trains them"
        )
    panels = _panels(found)
    difference = found.factor.shows == "difference"
    per_panel = 42 if len(panels[0]) < 4 else 26  # characters below a panel
    rotated = sum(len(level) + 2 for level in levels) > per_panel
    height = 0.8 + (2.7 if len(panels) == 1 else 1.9 * len(panels)) + 0.6 * rotated
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    # Differences are compared across panels; accuracies within one, as models are far apart.
    axes = figure.subplots(
        len(panels), len(panels[0]), squeeze=False, sharex=True, sharey=difference
    )
    for row, line in enumerate(panels):
        for column, panel in enumerate(line):
            ax = axes[row][column]
            _dress(ax, found, rotated)
            shifts = [index - (len(panel.series) - 1) / 2 for index in range(len(panel.series))]
            for each, shift in zip(panel.series, shifts, strict=True):
                _draw_series(ax, each, found, DODGE * shift)
            if row == 0:
                ax.set_title(panel.title, fontsize=11, fontweight="bold")
            if column == 0:
                ax.set_ylabel(panel.side, fontsize=11, fontweight="bold")
    flat = [panel for line in panels for panel in line]
    for ax, together in zip(axes.flat, [flat] if difference else [[p] for p in flat], strict=False):
        _scale(ax, _values(together, found.factor.shows), difference)
    unit = "Difference to 32-bit, points" if difference else "Test accuracy, %"
    figure.supylabel(unit, fontsize=10)
    figure.supxlabel(found.factor.axis, fontsize=10)
    for line in axes:
        _label_ends(figure, line[-1])
    return figure


def _panels(found: Found) -> list[list[Panel]]:
    if len(found.lines) == 1:
        (line,), looks = found.lines, dict(zip(found.models, STYLES, strict=False))

        def by_model(dataset: str) -> list[Series]:
            return [
                Series(model, found.at(line, dataset, model), *looks[model])
                for model in found.models
            ]

        return [[Panel(dataset, "", by_model(dataset)) for dataset in found.datasets]]

    looks = _looks(found)

    def by_line(dataset: str, model: str) -> list[Series]:
        return [Series(line, found.at(line, dataset, model), *looks[line]) for line in found.lines]

    return [
        [Panel(model, dataset, by_line(dataset, model)) for model in found.models]
        for dataset in found.datasets
    ]


def _looks(found: Found) -> dict[str, tuple[str, str]]:
    """Precisions look the same in all figures of the project; other lines take what is left."""
    precisions = {cell.line: cell.precision for cell in found.cells}
    named = {
        line: style(precision)
        for line, precision in precisions.items()
        if PRECISIONS.get(line, line) == precision
    }
    free = iter(look for look in STYLES if look not in named.values())
    return {line: named.get(line) or next(free) for line in found.lines}


def _draw_series(ax: Axes, series: Series, found: Found, shift: float) -> None:
    points = [
        (level + shift, *value)
        for level, name in enumerate(found.levels)
        if (value := _value(series.rows.get(name), found.factor.shows)) is not None
    ]
    if not points:
        return
    x, middle, low, high = zip(*points, strict=True)
    below = [m - bound for m, bound in zip(middle, low, strict=True)]
    above = [bound - m for m, bound in zip(middle, high, strict=True)]
    ax.errorbar(
        x,
        middle,
        yerr=[below, above],
        label=series.name,
        color=series.color,
        marker=series.marker,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        linewidth=1.4 if found.factor.ordered else 0.0,
        elinewidth=1.3,
    )


def _value(row: Row | None, shows: str) -> Value | None:
    """A mean and the bounds of its interval, which are the mean where one seed gives none."""
    if row is None:
        return None
    if shows == "difference":
        mean, low, high = row["diff_mean"], row["diff_low"], row["diff_high"]
    else:
        accuracies = [each for each in row["accuracies"] if each is not None]
        mean, low, high = paired_difference(accuracies, [0.0] * len(accuracies))
    if mean is None:
        return None
    return mean, mean if low is None else low, mean if high is None else high


def _dress(ax: Axes, found: Found, rotated: bool) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#E5E5E5", lw=0.8)
    ax.set_axisbelow(True)
    ax.set_xticks(range(len(found.levels)), found.levels)
    ax.set_xlim(-0.5, len(found.levels) - 0.5)
    ax.tick_params(labelsize=9)
    if rotated:
        for label in ax.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    if found.factor.shows == "difference":
        ax.axhline(0, color="black", lw=1, zorder=1.5)
    if found.factor.usual is not None:
        usual = found.levels.index(found.factor.usual)
        ax.axvspan(usual - 0.45, usual + 0.45, color="#F2F2F2", lw=0, zorder=0)


def _values(panels: Sequence[Panel], shows: str) -> list[Value]:
    rows = [row for panel in panels for series in panel.series for row in series.rows.values()]
    return [value for row in rows if (value := _value(row, shows)) is not None]


def _scale(ax: Axes, values: Sequence[Value], difference: bool) -> None:
    """Makes room for all means, and for intervals as far as they do not press the means flat."""
    means = [*(mean for mean, _, _ in values), *((-1.0, 1.0) if difference else ())]
    if not means:
        return
    room = max(1.0, 0.35 * (max(means) - min(means)))
    bottom = max([min(means) - room, min([*(low for _, low, _ in values), min(means)])])
    top = min([max(means) + room, max([*(high for _, _, high in values), max(means)])])
    if not difference:
        bottom, top = max(bottom, 0.0), min(top, 100.0)
    if difference and max(-bottom, top) > LARGE:
        ax.set_yscale("symlog", linthresh=LINEAR, linscale=1.0)
        ax.yaxis.set_major_locator(FixedLocator(STEPS))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylim(1.2 * bottom, 1.2 * top)
    else:
        margin = 0.06 * (top - bottom)
        ax.set_ylim(bottom - margin, top + margin)
        ax.yaxis.set_major_locator(MaxNLocator(6, min_n_ticks=3))
    if difference:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(value)))


def signed(value: float) -> str:
    """A number with its sign, and a real minus: `"+0.5"`, `"0"`, `"−20"`.

    Args:
        value: The number.
    """
    value = round(value, 6)
    return "0" if value == 0 else f"{value:+g}".replace("-", "−")


def _label_ends(figure: Figure, ax: Axes) -> None:
    """Names the lines of a panel on its right, each as high as its end, but never overlapping."""
    ends: list[tuple[float, str, str]] = []
    ax.set_ylim(ax.get_ylim())
    for drawn in ax.containers:
        line = drawn.lines[0]  # type: ignore[attr-defined]
        at = ax.transData.transform((0.0, float(line.get_ydata()[-1])))
        share = float(ax.transAxes.inverted().transform(at)[1])
        ends.append((share, str(drawn.get_label()), line.get_color()))
    ends.sort()
    inches = ax.get_position().height * figure.get_figheight()
    heights = spread([share for share, *_ in ends], LINE_HEIGHT / inches)
    for height, (_, name, color) in zip(heights, ends, strict=True):
        ax.annotate(
            name,
            (1.02, height),
            xycoords="axes fraction",
            color=color,
            fontsize=9.5,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Moves sorted places apart, as little as it takes from below, and back to below 1.

    Args:
        places: The places, in ascending order.
        gap: The least distance of two of them.
    """
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + gap) if found else place)
    limit = 1.0
    for index in range(len(found) - 1, -1, -1):
        found[index] = min(found[index], limit)
        limit = found[index] - gap
    return found
