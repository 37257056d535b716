"""Numbers and names as people read them: shared by the table, the plots and the report."""

from collections.abc import Sequence

from bitgnn.experiment.rows import DISTILLED, FULL, Row, variants

MISSING = "–"
METRICS = {"accuracy": "accuracy", "rocauc": "ROC AUC"}
PRECISIONS = {"fp32": "32-bit", DISTILLED: "32-bit distilled"}
TO_FULL, TO_DISTILLED = "diff", "diff_distilled"  # the two differences of a row


def precision_name(precision: str) -> str:
    return PRECISIONS.get(precision, precision)


def metric_name(metric: str) -> str:
    return METRICS.get(metric, metric)


def number(value: float, signed: bool = False) -> str:
    r"""Two decimals, with a real minus sign and never a negative zero."""
    text = f"{value:+.2f}" if signed else f"{value:.2f}"
    if float(text) == 0.0:
        text = "0.00"
    return text.replace("-", "−")


def mean_sd(row: Row) -> str:
    if row["mean"] is None:
        return MISSING
    text = number(row["mean"])
    return text if row["sd"] is None else f"{text} ± {number(row['sd'])}"


def interval(row: Row, to: str = TO_FULL) -> str:
    if row.get(f"{to}_low") is None:
        return ""
    return f"[{number(row[f'{to}_low'], True)}, {number(row[f'{to}_high'], True)}]"


def difference(row: Row, to: str = TO_FULL) -> str:
    if row.get(f"{to}_mean") is None:
        return MISSING if to == TO_FULL and row["precision"] != "fp32" else ""
    return f"{number(row[f'{to}_mean'], True)} {interval(row, to)}".rstrip()


def excludes_zero(row: Row, to: str = TO_FULL) -> bool:
    low, high = row.get(f"{to}_low"), row.get(f"{to}_high")
    return low is not None and high is not None and (low > 0 or high < 0)


def is_full(row: Row) -> bool:
    """Whether a row quantizes nothing."""
    return row["precision"] in FULL


def has_distilled(rows: Sequence[Row]) -> bool:
    """Whether a row is compared with 32-bit with the same teacher."""
    return any(row.get("diff_distilled_mean") is not None for row in rows)


def share(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.0f} %"


def memory(num_bytes: float | None) -> str:
    r"""Bytes in binary units: :obj:`"92.2 KiB"`."""
    return _scaled(num_bytes, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def count(value: float | None) -> str:
    r"""A count in decimal units: :obj:`"62.0 M"`."""
    return _scaled(value, 1000, ("", "k", "M", "G", "T", "P"))


def seed_list(seeds: Sequence[int]) -> str:
    r"""Names the seeds, three or more in a row as a range: :obj:`"seeds 0–9"`."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    ranges = [
        f"{part[0]}–{part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts
    ]
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(ranges)}"


def notes(rows: Sequence[Row]) -> list[str]:
    r"""What a reader of the numbers must be told: diverged seeds, missing partners, one seed."""
    lines = []
    for row, variant in zip(rows, variants(rows), strict=True):
        name = f"{row['dataset']} {row['model']} {precision_name(row['precision'])}"
        name += f" ({variant})" if variant else ""
        total, finished = len(row["seeds"]), len(row["seeds"]) - len(row["diverged"])
        if finished == 0:
            lines.append(f"{name}: no run finished, {seed_list(row['seeds'])} diverged.")
            continue
        if row["diverged"]:
            lines.append(
                f"{name}: {seed_list(row['diverged'])} of {total} diverged; "
                f"the mean is over the other {finished}."
            )
        if row["precision"] == "fp32":
            continue
        if row["pairs"] == 0:
            lines.append(f"{name}: no finished 32-bit run of the same seeds, no difference.")
        elif row["pairs"] == 1:
            lines.append(f"{name}: one pair of runs gives no interval.")
        elif row["pairs"] < finished:
            lines.append(
                f"{name}: the difference is over {row['pairs']} seeds, finished on both sides."
            )
        if 0 < row["pairs_distilled"] < finished:
            lines.append(
                f"{name}: the difference to distilled is over {row['pairs_distilled']} seeds, "
                "finished on both sides."
            )
    return lines


def _scaled(value: float | None, base: int, units: Sequence[str]) -> str:
    if value is None:
        return MISSING
    power = 0
    # What would be rounded up to the base belongs to the next unit.
    while value >= base - 0.5 and power < len(units) - 1:
        value /= base
        power += 1
    decimals = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f} {units[power]}".rstrip()
