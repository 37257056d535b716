import torch

import bitgnn


def test_info(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("BITGNN_DATA", str(tmp_path / "absent"))
    found = cli("info")
    assert found.status == 0
    lines = {line.split("  ")[0]: line.strip() for line in found.out.splitlines()}
    assert bitgnn.__version__ in lines["bitgnn"]
    assert torch.__version__ in lines["torch"]
    assert {"torch_scatter", "torch_sparse", "pyg_lib", "machine", "threads", "cache"} <= set(lines)
    assert "reference path in use" in lines["native kernels"]
    assert "cpu" in lines["devices"]
    assert lines["data"].endswith(f"{tmp_path / 'absent'} (not there yet)")
    assert lines["store"].endswith("bitgnn-results.sqlite")
