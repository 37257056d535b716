"""Where ternary loses accuracy, and where it does not: one factor at a time, then pairs.

python -m benchmarks.gap list
python -m benchmarks.gap run weight-decay --seeds 5
python -m benchmarks.gap figure weight-decay
python -m benchmarks.gap page
"""
