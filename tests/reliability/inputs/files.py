"""Bad packed files."""

import json

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bitgnn import load, pack
from bitgnn.nn import BitGATConv, BitGCNConv, BitMLP
from bitgnn.packed.file import MOST_HEADER
from bitgnn.tensor_file import checksum
from tests.reliability.bad_input import BadInput


def packed_file(folder, model=None):
    """A packed model's file."""
    path = folder / "model.safetensors"
    pack((model or BitMLP([4, 8, 2])).eval()).save(path)
    return path


def changed(change, reseal=True, model=None):
    """Reads a file after `change` of its tensors, metadata and steps, or with the text that it
    returns as its program."""

    def call(folder):
        path = packed_file(folder, model)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        steps = json.loads(metadata["program"])
        metadata["program"] = change(tensors, metadata, steps) or json.dumps(steps)
        if reseal:
            metadata["sha256"] = checksum(tensors, metadata)
        save_file(tensors, path, metadata)
        return load(path)

    return call


def of_bytes(change):
    """Reads a file after `change` of its bytes."""

    def call(folder):
        path = packed_file(folder)
        path.write_bytes(change(path.read_bytes()))
        return load(path)

    return call


def call_act(tensors, metadata, steps):
    act = next(step for step in steps if step["op"] == "act")
    act["attrs"] = {"kind": "save", "f": "/tmp/anything"}


def loop(tensors, metadata, steps):
    steps[0]["inputs"] = [2]


def widen(tensors, metadata, steps):
    for _ in range(40):
        last = len(steps)
        steps.append(
            {
                "op": "cat", "inputs": [last, last], "name": "", "attrs": {}, "tensors": [],
                "trits": {}, "edges": None,
            }
        )  # fmt: skip


def vary_edges(tensors, metadata, steps):
    aggregate = next(step for step in steps if step["op"] == "aggregate")
    for number in range(2000):
        edges = aggregate["edges"] | {"fill": 1 + number / 1000}
        steps.append(aggregate | {"inputs": [len(steps)], "edges": edges})


def nest(tensors, metadata, steps):
    return "[" * 100_000


def attribute(name, value):
    def change(tensors, metadata, steps):
        next(step for step in steps if name in step["attrs"])["attrs"][name] = value

    return change


def tensor(name, value):
    return lambda tensors, metadata, steps: tensors.update({name: value})


GAT = BitGATConv(4, 3, heads=2)

BAD_INPUTS = [
    BadInput("load(path)", given, call, ValueError, says)
    for given, call, says in [
        ("a file that is cut off", of_bytes(lambda all_: all_[:-1]), "or damaged"),
        ("an empty file", of_bytes(lambda all_: b""), "is no packed model, or damaged"),
        (
            "a flipped bit",
            of_bytes(lambda all_: all_[:-1] + bytes([all_[-1] ^ 1])),
            "its checksum differs",
        ),
        (
            "a header of 2^40 bytes",
            of_bytes(lambda all_: (2**40).to_bytes(8, "little") + all_[8:]),
            f"{MOST_HEADER} are allowed",
        ),
        ("another checksum", changed(loop, reseal=False), "its checksum differs"),
        ("a function of torch as activation", changed(call_act), "'kind' must be one of"),
        ("a step that reads a later one", changed(loop), "'inputs' must be a list"),
        ("40 times a value beside itself", changed(widen), "it makes rows of 1 to 262144 columns"),
        (
            "2,000 forms of the edges",
            changed(vary_edges, model=BitGCNConv(4, 3)),
            "'edges' must be one of at most 16 descriptions",
        ),
        ("JSON nested 100,000 deep", changed(nest), "'program' is nested too deeply"),
        ("2^64 bits", changed(attribute("bits", 2**64)), "'bits' must be one of"),
        ("8.0 bits", changed(attribute("bits", 8.0)), "'bits' must be one of"),
        (
            "an integer that no float holds",
            changed(attribute("slope", 10**30), model=GAT),
            "'slope' must be a number",
        ),
        ("an eps of 1", changed(attribute("eps", 1)), "'eps' must be a number from 1e-30 to below"),
        ("NaN as an attribute", changed(attribute("eps", float("nan"))), "NaN is no number"),
        ("true as a number", changed(attribute("eps", True)), "'eps' must be a number"),
        ("a short bias", changed(tensor("1.bias", torch.ones(3))), "'bias' has 3 numbers, but"),
        ("a bias of 16 bits", changed(tensor("1.bias", torch.ones(8).half())), "'bias' must be of"),
        (
            "more heads than columns",
            changed(attribute("heads", 60), model=GAT),
            "'heads' must divide the 6 columns",
        ),
        (
            "bytes that are no ternary weights",
            changed(tensor("1.weight", torch.full((7,), 255, dtype=torch.uint8))),
            "the data is damaged",
        ),
        (
            "a newer version",
            changed(lambda tensors, metadata, steps: metadata.update(version="9")),
            "upgrade bitgnn",
        ),
    ]
]
