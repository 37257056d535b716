import os
import subprocess
import sys

import pytest
import torch

from bitgnn.experiment.speed.memory import forget_peak, give_back, resident

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells memory")
MIB = 2**18  # numbers


def test_memory_of_this_process():
    give_back()  # Else memory that tests before this one have freed may serve it.
    before = resident("RssAnon")
    numbers = torch.ones(64 * MIB)
    assert resident("RssAnon") >= before + 60 and len(numbers)
    assert resident("VmHWM", os.getpid()) >= resident("VmRSS") >= resident("RssAnon")


def test_peaks_are_forgotten():
    torch.ones(128 * MIB)
    give_back()
    assert resident("VmHWM") >= resident("VmRSS") + 60
    forget_peak()
    assert resident("VmHWM") <= resident("VmRSS") + 8


def test_processes_that_are_gone():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert resident("VmRSS", gone.pid) is None
    assert resident("Nothing") is None
