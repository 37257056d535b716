"""Compares 1.58-bit with 32-bit models from Python.

python examples/compare_from_python.py
"""

from bitgnn import compare

if __name__ == "__main__":  # Training runs in processes of its own.
    comparison = compare(
        dataset="Digits",
        model=["gcn", "mlp"],
        seeds=3,
        settings={"epochs": 60, "patience": None},
        store="examples.sqlite",  # Run it again: nothing is trained twice.
        progress=False,
    )
    for row in comparison.rows:
        line = f"{row['dataset']} {row['model']:4} {row['precision']:14} {row['mean']:.1f} %"
        if row["diff_mean"] is not None:
            line += (
                f", {row['diff_mean']:+.1f} points to 32-bit "
                f"(95 % interval {row['diff_low']:+.1f} to {row['diff_high']:+.1f})"
            )
        print(line + f", {row['weight_bytes'] / 1024:.1f} KiB")
