"""The page: figures and tables as measured, and what is read from them, which people write in
readings.md."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.gap.factors import FINDINGS
from benchmarks.gap.figure import LINEAR
from benchmarks.gap.plan import Study
from benchmarks.gap.results import Found, overall
from benchmarks.study import markdown_table
from bitgnn.experiment.format import MISSING, difference, mean_sd, number, seed_list

HERE = Path(__file__).parent
NOT_RUN, NOT_READ = "(not yet run)", "(run, but no reading yet)"


def read_readings(text: str) -> dict[str, str]:
    """Splits the readings into one a heading.

    Args:
        text: Markdown, with the name of a factor or a finding behind each `##`.
    """
    parts = re.split(r"^## +(\S+) *$", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def make_page(
    results: Sequence[Found], study: Study, images: Mapping[str, str], readings: Mapping[str, str]
) -> str:
    """Returns the page.

    Args:
        results: What is known of each factor.
        study: Where they were looked at.
        images: Where the figures are that could be drawn, by the name of the factor.
        readings: What is read from the figures, by name.
    """
    known = {found.factor.name for found in results if found.whole}

    def reading(name: str, *factors: str) -> str:
        if not known or not known.issuperset(factors):
            return NOT_RUN
        return readings.get(name) or NOT_READ

    def section(found: Found) -> str:
        return environment.get_template("section.md.j2").render(
            factor=found.factor,
            image=images.get(found.factor.name),
            reading=reading(found.factor.name, found.factor.name),
            caption=_caption(found),
            table=summary_table(found) if found.whole else "",
            cells=cells_table(found) if found.whole else "",
            done=found.done,
            total=found.total,
        )

    # Nothing is escaped: what comes out is Markdown, made of our own words and numbers.
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("page.md.j2").render(
        datasets=_several(study.datasets),
        models=_several(study.models),
        seeds=seed_list(study.seeds),
        linear=f"{LINEAR:g}",
        findings=FINDINGS,
        titles={found.factor.name: found.factor.title for found in results},
        singles=[found for found in results if not found.factor.pair],
        pairs=[found for found in results if found.factor.pair],
        reading=reading,
        section=section,
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def summary_table(found: Found) -> str:
    """What each level shows on average over the models, by data set, and over all cells."""
    several = len(found.lines) > 1
    header = [*(["line"] if several else []), "level", *found.datasets, "all"]
    lines = [
        [
            *([line] if several else []),
            level,
            *(_number(found, overall(found, line, level, each)) for each in found.datasets),
            _number(found, overall(found, line, level)),
        ]
        for line, level in dict.fromkeys((cell.line, cell.level) for cell in found.cells)
    ]
    return markdown_table(header, lines, names=1 + several)


def cells_table(found: Found) -> str:
    """What each level shows in each cell: differences with their interval, or means."""
    several = len(found.lines) > 1
    show = difference if found.factor.shows == "difference" else mean_sd
    header = ["data set", "model", *(["line"] if several else []), *found.levels]
    lines = []
    for dataset in found.datasets:
        for model in found.models:
            for line in found.lines:
                rows = found.at(line, dataset, model)
                numbers = [
                    show(rows[level]) or MISSING if level in rows else MISSING
                    for level in found.levels
                ]
                lines.append([dataset, model, *([line] if several else []), *numbers])
    return markdown_table(header, lines, names=2 + several)


def _caption(found: Found) -> str:
    models = ", ".join(found.models)
    if found.factor.shows == "difference":
        return f"Difference to 32-bit in points, mean over the models ({models}):"
    return f"Test accuracy in percent, mean over the models ({models}):"


def _number(found: Found, value: float | None) -> str:
    return MISSING if value is None else number(value, found.factor.shows == "difference")


def _several(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
