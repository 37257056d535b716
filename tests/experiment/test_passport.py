import json
from datetime import datetime

import pytest
import torch

import bitgnn
from bitgnn.experiment.passport import commit, device_name, package_version, passport
from bitgnn.kernels import native


def test_passport():
    found = passport()
    assert json.loads(json.dumps(found)) == found
    assert found["bitgnn"] == bitgnn.__version__
    assert found["torch"] == torch.__version__
    assert found["device"] == "cpu"
    assert found["threads"] == torch.get_num_threads()
    assert datetime.fromisoformat(found["time"]).utcoffset().total_seconds() == 0
    assert "cores" in found["machine"]
    assert found["kernels"] == native.isa()


def test_commit_is_a_full_hash_or_none():
    found = commit()
    assert found is None or len(found.removesuffix("-dirty")) == 40


def test_package_that_is_not_installed():
    assert package_version("no-such-package") is None


@pytest.mark.gpu
def test_name_of_a_gpu():
    assert torch.cuda.get_device_name(0) in device_name("cuda:0")
