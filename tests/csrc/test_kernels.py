"""Kernels for Arm, compiled for it (a minute) and run by an emulator. Where Python runs on such a
processor, the other tests test them."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

TOOLS = "cmake", "aarch64-linux-gnu-g++", "qemu-aarch64"
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.skipif("BITGNN_EMULATE" not in os.environ, reason="slow: set BITGNN_EMULATE=1"),
    pytest.mark.skipif(bool(MISSING), reason=f"there is no {', no '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    build = tmp_path_factory.mktemp("build")
    for_arm = [
        "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
    ]
    subprocess.run(["cmake", "-S", Path(__file__).parent, "-B", build, *for_arm], check=True)
    subprocess.run(["cmake", "--build", build, "--parallel"], check=True)
    return build / "numbers"


def run(program, processor, isa=None):
    """The instruction set that was chosen, and the numbers of each line."""
    environment = {**os.environ, "BITGNN_ISA": isa} if isa else None
    lines = subprocess.run(
        ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu", processor, program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    numbers = [line.split() for line in lines[1:]]
    return lines[0], [(name, np.array(each, dtype=float)) for name, *each in numbers]


def test_dot_products_give_the_same_numbers(program):
    name, found = run(program, "max")
    other, expected = run(program, "max", isa="portable")
    assert (name, other) == ("neon", "portable") and len(found) == len(expected)
    for (what, mine), (_, portable) in zip(found, expected, strict=True):
        if what.startswith("same:"):
            assert np.array_equal(mine, portable), what
        else:
            np.testing.assert_allclose(mine, portable, rtol=1e-4, atol=1e-5, err_msg=what)


def test_a_processor_without_dot_products(program):
    assert run(program, "cortex-a53")[0] == "portable"
