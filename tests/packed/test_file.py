import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bitgnn import QuantConfig
from bitgnn.nn import BitGCN, BitGraphSAGE
from bitgnn.packed.file import FORMAT, checksum, read_program, write_program
from bitgnn.packed.trace import trace


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    write_program(trace(BitGCN(8, 16, 2, 4)), path, {"model": "BitGCN"})
    return path


@pytest.mark.parametrize(
    "quant", [QuantConfig(), QuantConfig(granularity="channel"), QuantConfig(weight_bits=4), None]
)
def test_what_is_read_is_what_was_written(quant, tmp_path):
    program = trace(BitGraphSAGE(9, 17, 3, 5, norm="batch_norm", jk="cat", quant=quant))
    write_program(program, tmp_path / "m.safetensors", {"a": "é"})
    found, about = read_program(tmp_path / "m.safetensors")
    assert about == {"a": "é"}
    for one, other in zip(found.steps, program.steps, strict=True):
        assert (one.op, one.inputs, one.name, one.edges) == (
            other.op, other.inputs, other.name, other.edges
        )  # fmt: skip
        assert dict(one.attrs) == dict(other.attrs)
        assert set(one.tensors) == set(other.tensors)
        for name, value in other.tensors.items():
            assert one.tensors[name].dtype == value.dtype
            assert torch.equal(one.tensors[name], value)


def test_others_can_read_what_it_is(path):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        stored = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert metadata["format"] == FORMAT and metadata["version"] == "1"
    assert [step["op"] for step in json.loads(metadata["program"])][:2] == ["quantize", "linear"]
    assert stored["1.weight"] == torch.uint8


def test_damage_is_seen(path):
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"model.safetensors' is (damaged|no packed model)"):
            read_program(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is no packed model, or damaged"):
        read_program(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is no packed model, or damaged"):
        read_program(path)


def test_files_of_others(tmp_path, path):
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(3)}, other)
    with pytest.raises(ValueError, match="is a safetensors file, but no packed model of bitgnn"):
        read_program(other)
    with pytest.raises(FileNotFoundError, match="There is no file '.*missing'"):
        read_program(tmp_path / "missing")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() | {"version": "9"}
    save_file(tensors, other, metadata)
    with pytest.raises(ValueError, match="is damaged: its checksum differs"):  # Above all else.
        read_program(other)
    save_file(tensors, other, metadata | {"sha256": checksum(tensors, metadata)})
    with pytest.raises(ValueError, match="has version 9, and this bitgnn knows versions up to 2"):
        read_program(other)


def test_an_interrupted_write_leaves_what_was_there(path, monkeypatch):
    before = path.read_bytes()

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_program(trace(BitGCN(8, 32, 2, 4)), path, {})
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]
