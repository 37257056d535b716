import torch

import bitgnn
from bitgnn.experiment.format import memory
from bitgnn.kernels import native


def test_info(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("BITGNN_DATA", str(tmp_path / "absent"))
    found = cli("info")
    assert found.status == 0
    lines = {line.split("  ")[0]: line.strip() for line in found.out.splitlines()}
    assert bitgnn.__version__ in lines["bitgnn"]
    assert torch.__version__ in lines["torch"]
    assert {"torch_scatter", "torch_sparse", "pyg_lib", "machine", "threads", "cache"} <= set(lines)
    assert lines["native kernels"].endswith(native.status())
    assert "cpu" in lines["devices"]
    assert lines["data"].endswith(f"{tmp_path / 'absent'} (not there yet)")
    assert lines["store"].endswith("bitgnn-results.sqlite")


def test_size_of_the_teachers(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path))
    assert "0 in the cache, 0 B" in cli("info").out
    cli("train --dataset Digits --model mlp --recipe distill --set epochs=1")
    [file] = (tmp_path / "teachers").iterdir()
    assert f"1 in the cache, {memory(file.stat().st_size)}" in cli("info").out
