import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from bitgnn import QuantConfig, load, pack
from bitgnn.nn import BitGATConv, BitGCN, BitGraphSAGE, BitLinear
from bitgnn.packed.file import FORMAT, MOST_HEADER, _steps, read_program, write_program
from bitgnn.packed.program import Step
from bitgnn.packed.trace import trace
from bitgnn.packed.trits import to_trits
from bitgnn.tensor_file import checksum


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
    with pytest.raises(ValueError, match=r"damaged \(its checksum differs\)"):  # Above all else.
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


def rewrite(path, change):
    """Writes a file again after `change` of its tensors, metadata and steps, with the checksum
    recomputed."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    steps = json.loads(metadata["program"])
    changed = change(tensors, metadata, steps)
    if metadata.get("program"):
        metadata["program"] = json.dumps(steps if changed is None else changed)
    metadata["sha256"] = checksum(tensors, metadata)
    save_file(tensors, path, metadata)


def test_no_function_is_called_by_its_name(path, tmp_path):
    target = tmp_path / "written"

    def save(tensors, metadata, steps):
        attrs = {"kind": "save", "f": str(target)}
        steps.append(
            {
                "op": "act", "inputs": [len(steps)], "name": "", "attrs": attrs, "tensors": [],
                "trits": {}, "edges": None,
            }
        )  # fmt: skip

    rewrite(path, save)
    with pytest.raises(ValueError, match=r"model.safetensors' cannot be read: Step .*'kind' must"):
        load(path)
    assert not target.exists()


def replace_tensor(name, value):
    return lambda tensors, metadata, steps: tensors.update({name: value})


def set_metadata(**values):
    return lambda tensors, metadata, steps: metadata.update(values)


def set_step(place, **values):
    return lambda tensors, metadata, steps: steps[place].update(values)


def set_program(value):
    return lambda tensors, metadata, steps: value


BAD_FILES = {
    "no step": (set_program([3]), "Step 0 must be an object"),
    "no list": (set_program({"a": 1}), "'program' must be a list of at most"),
    "many steps": (set_program([{}] * 3000), "'program' must be a list of at most"),
    "an empty step": (set_program([{}]), "'op' is missing"),
    "an unknown key": (set_step(0, more=1), "'more' is no field of it"),
    "an operator that is no text": (set_step(0, op=[]), "'op' must be a string"),
    "attributes that are no object": (set_step(0, attrs=[]), "'attrs' must be an object"),
    "a boolean for a number": (set_step(0, inputs=[False]), "'inputs' must be a list"),
    "a huge number": (set_step(0, inputs=[2**70]), "'inputs' must be a list"),
    "infinity": (set_step(0, attrs={"eps": float("inf")}), "Infinity is no number"),
    "NaN": (set_step(0, attrs={"eps": float("nan")}), "NaN is no number"),
    "tensors that are missing": (set_step(1, tensors=["weight", "x"]), "tensor '1.x' is missing"),
    "tensors twice": (set_step(1, tensors=["weight", "weight"]), "'tensors' must be a list"),
    "edges that are no object": (set_step(0, edges=3), "'edges' must be an object or null"),
    "edges without a norm": (set_step(2, edges={}), "'edges.norm' is missing"),
    "an unknown key of edges": (set_step(2, edges={"x": 1}), "'edges.norm' is missing"),
    "a huge shape": (set_step(1, trits={"weight": [2**39, 2**39]}), "takes? .* bytes"),
    "a shape of one size": (set_step(1, trits={"weight": [128]}), "'trits.weight' must be two"),
    "a negative shape": (set_step(1, trits={"weight": [-16, -8]}), "'trits.weight' must be two"),
    "no shape": (set_step(1, trits={}), "'trits.weight' must be two sizes"),
    "a shape of what has none": (set_step(0, trits={"eps": [1, 1]}), "does not belong there"),
    "a shared tensor that is not there": (
        set_step(1, shared={"weight": "9.weight"}),
        "tensor '9.weight' is missing",
    ),
    "a tensor of no step": (replace_tensor("77.x", torch.ones(1)), "No step has the tensor '77.x'"),
    "bytes that are no trits": (
        replace_tensor("1.weight", torch.full((26,), 250, dtype=torch.uint8)),
        "at most 242",
    ),
    "bytes of another type": (replace_tensor("1.weight", torch.ones(26)), "got torch.float32"),
    "no version": (set_metadata(version=""), "'version' must be a number"),
    "version 0": (set_metadata(version="0"), "'version' must be a number"),
    "a huge version": (set_metadata(version="9" * 5000), "'version' must be a number"),
    "more metadata": (set_metadata(more=""), "'more' is no part of its metadata"),
    "a list about it": (set_metadata(about="[]"), "'about' must be an object of strings"),
    "numbers about it": (set_metadata(about='{"a": 1}'), "'about' must be an object of strings"),
    "nothing about it": (set_metadata(about=""), "'about' is no valid JSON"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_files_with_a_right_checksum(bad, path):
    change, message = BAD_FILES[bad]
    rewrite(path, change)
    with pytest.raises(ValueError, match=message) as error:
        read_program(path)
    assert type(error.value) is ValueError and str(path) in str(error.value)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "[1", "9" * 5000, '"\\ud800"'])
def test_text_that_is_no_program(path, text):
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() | {"program": text}
    save_file(tensors, path, metadata | {"sha256": checksum(tensors, metadata)})
    with pytest.raises(ValueError, match="'program'"):
        read_program(path)


def test_a_large_header_is_not_read(tmp_path):
    path = tmp_path / "large"
    for size in (MOST_HEADER + 1, 2**63, 2**64 - 1):
        path.write_bytes(size.to_bytes(8, "little"))
        with pytest.raises(ValueError, match=f"a header of {size} bytes"):
            read_program(path)


class Twice(nn.Module):
    def __init__(self, quant):
        super().__init__()
        self.lin = BitLinear(50, 50, quant=quant)

    def forward(self, x):
        return self.lin(torch.relu(self.lin(x)))


@pytest.mark.parametrize("quant", [QuantConfig(), QuantConfig(weight_bits=4), None])
def test_a_layer_applied_twice_is_stored_once(quant, tmp_path):
    model = Twice(quant).eval()
    packed, once = pack(model), pack(model.lin)
    assert packed.num_bytes == once.num_bytes
    packed.save(tmp_path / "twice"), once.save(tmp_path / "once")
    with safe_open(tmp_path / "twice", framework="pt") as file:
        assert file.metadata()["version"] == "2"  # What older versions refuse by name.
        stored = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert stored == once.num_bytes
    found = load(tmp_path / "twice")
    assert found.num_bytes == packed.num_bytes
    first, *_, last = [step for step in found.program.steps if step.op == "linear"]
    assert first.tensors["weight"] is last.tensors["weight"]
    x = torch.randn(6, 50)
    assert torch.equal(found(x), packed(x))
    with safe_open(tmp_path / "once", framework="pt") as file:
        assert file.metadata()["version"] == "1"


@pytest.mark.parametrize("quant", [QuantConfig(), None])
def test_a_packed_model_is_not_trained_on(quant):
    model, x = Twice(quant).eval(), torch.randn(6, 50)
    packed = pack(model)
    before = packed(x, exact=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(packed(x, exact=True), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_parameters_of_another_type_become_32_bits(dtype):
    program = pack(nn.Linear(4, 3).to(dtype)).program
    assert {value.dtype for step in program.steps for value in step.tensors.values()} == {
        torch.float32
    }


def test_one_weight_of_many_shapes_takes_its_memory_once():
    values = torch.randint(-1, 2, (64,), dtype=torch.int8)
    steps = [
        Step(
            "linear", (0,), f"lin{n}", {"bits": 1.58, "rescale_bias": False},
            {"weight": values.view(n, 64 // n), "scale": torch.ones(1)},
        )
        for n in (2, 4, 8, 16, 32)
    ]  # fmt: skip
    tensors = {"0.weight": to_trits(values), **{f"{k}.scale": torch.ones(1) for k in range(5)}}
    written = [
        {
            "op": step.op, "inputs": [0], "name": step.name, "attrs": dict(step.attrs),
            "tensors": ["scale", "weight"], "trits": {"weight": list(step.tensors["weight"].shape)},
            "edges": None, "shared": {"weight": "0.weight"} if place else {},
        }
        for place, step in enumerate(steps)
    ]  # fmt: skip
    found = _steps(written, tensors)
    assert len({step.tensors["weight"].data_ptr() for step in found}) == 1
    for step, expected in zip(found, steps, strict=True):
        assert torch.equal(step.tensors["weight"], expected.tensors["weight"])


class Behind(nn.Module):
    """A ternary layer, and another one behind it."""

    def __init__(self, layer):
        super().__init__()
        self.lin, self.layer = BitLinear(4, 3), layer

    def forward(self, x, edge_index):
        reads = isinstance(self.layer, BitGATConv)
        return self.layer(self.lin(x), edge_index) if reads else self.layer(self.lin(x))


NUMBERS = {
    "alpha": (nn.ELU(), (1, 0, -2, 2**80)),
    "negative_slope": (nn.LeakyReLU(), (1, 0, -2, 2**80)),
    "slope": (BitGATConv(3, 3), (1, 0, -2, 2**80)),
    "eps": (nn.LayerNorm(3), (0, 1, 2**80)),
}


@pytest.mark.parametrize("native", ["0", "1"])
@pytest.mark.parametrize("name", NUMBERS)
def test_integers_where_floats_are_meant(name, native, tmp_path, monkeypatch):
    monkeypatch.setenv("BITGNN_NATIVE", native)
    layer, values = NUMBERS[name]
    model = Behind(layer).eval()
    x, edges = torch.randn(3, 4), torch.tensor([[0, 1, 2], [1, 2, 0]])
    place = tmp_path / "model.safetensors"
    for value in values:
        pack(model).save(place)

        def change(tensors, metadata, steps, value=value):
            found = [step["attrs"] for step in steps if name in step["attrs"]]
            found[-1][name] = value

        rewrite(place, change)
        packed = load(place)
        assert type(packed.program.steps[-1].attrs.get(name, 0.0)) is float
        graph = edges if packed.program.reads_edges else None
        assert packed(x, graph).shape == (3, 3)


def test_a_model_with_integers_where_floats_are_meant(path, monkeypatch):
    monkeypatch.setenv("BITGNN_NATIVE", "0")
    model = nn.Sequential(BitLinear(4, 3), nn.LeakyReLU(0), nn.ELU(alpha=2**80)).eval()
    packed = pack(model)
    packed.save(path)
    x = torch.randn(3, 4)
    assert torch.equal(packed(x), load(path)(x))
    with pytest.raises(ValueError, match="'alpha' must be a number"):
        pack(nn.Sequential(BitLinear(4, 3), nn.ELU(alpha=10**30)))
