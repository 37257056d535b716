import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each example must come to say, as a sign that it ran to its end.
EXAMPLES = {
    "ternary_layer.py": "Weights of the first layer: [-1.0, 0.0, 1.0] times",
    "convert_gat.py": "Ternary, 60 epochs of tuning:",
    "compare_from_python.py": "Digits mlp  absmedian",
    "continual.py": "Epoch 150: strength 1.00",
    "hetero.py": "Packed:  ",
    "sharded.py": "Test: ",
}


def test_every_example_is_run():
    assert set(EXAMPLES) == {path.name for path in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path):
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / name], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert EXAMPLES[name] in run.stdout
