import hashlib
import json
import zlib

import numpy as np
import pytest

MODELS = {  # accuracy of the 32-bit side on Cora, weights
    "gcn": (81.5, 23040),
    "sage": (80.3, 46080),
    "gat": (82.4, 92160),
    "sgc": (80.9, 10031),
    "mlp": (58.1, 92231),
}
DATASETS = {"Cora": 0.0, "CiteSeer": -10.5, "PubMed": -2.5}
PENALTY = {"fp32": 0.0, "fp32-distilled": -0.4, "absmean": 0.7, "absmedian": 0.5, "absmax": 0.9}
TEACHING = ("teacher", "teacher_weight", "teacher_decay", "temperature", "standardize", "start")


def _curve(start, end, epochs, noise, rng):
    smooth = end + (start - end) * np.exp(-np.arange(epochs) / 25)
    return (smooth + rng.normal(0, noise, epochs)).tolist()


def make_record(
    dataset="Cora", model="gcn", precision="fp32", seed=0, diverged=False, epochs=200, **recipe
):
    r"""A record as :func:`bitgnn.experiment.execute` returns it, with plausible numbers."""
    base, weights = MODELS[model]
    base += DATASETS.get(dataset, 0.0)
    common = np.random.default_rng([seed, zlib.crc32(f"{dataset} {model}".encode())])
    rng = np.random.default_rng([seed, zlib.crc32(f"{dataset} {model} {precision}".encode())])
    test = round(base + common.normal(0, 0.6) - PENALTY[precision] + rng.normal(0, 0.35), 2)
    epochs = int(epochs - rng.integers(0, epochs // 4))
    ternary = precision not in ("fp32", "fp32-distilled")
    if precision == "fp32":
        recipe = {name: value for name, value in recipe.items() if name not in TEACHING}
    taught_by = {"model": recipe.get("teacher"), "recipe": {"lr": 0.01}}
    quant = {"weight_bits": 1.58, "weight_measure": precision, "activation_bits": 8}
    spec = {
        "dataset": dataset,
        "split_kind": "public",
        "checksum": hashlib.sha256(dataset.encode()).hexdigest(),
        "model": model,
        "precision": precision,
        "quant": quant if ternary else None,
        "recipe": {
            "hidden_channels": 64 if model != "gat" else 8,
            "num_layers": 2,
            "dropout": 0.5,
            "lr": 0.01 if model != "gat" else 0.005,
            "weight_decay": 5e-4,
            "epochs": 200,
            "patience": None,
            "schedule": {"kind": "constant", "start": 0.0, "end": 1.0},
            **recipe,
        },
        "seed": seed,
        "teacher": taught_by if recipe.get("teacher") else None,
    }
    curves = {
        "loss": _curve(1.95, 0.35 + 0.1 * ternary, epochs, 0.02, rng),
        "val": _curve(20.0, test - 1.5, epochs, 0.5, rng),
        "test": _curve(20.0, test, epochs, 0.5, rng),
    }
    if diverged:
        curves = {name: [*values[:20], None] for name, values in curves.items()}
    return {
        "key": hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest(),
        "spec": spec,
        "metric": "accuracy",
        "test": None if diverged else test,
        "val": None if diverged else round(test - 1.5, 2),
        "best_epoch": None if diverged else epochs - 3,
        "epochs": len(curves["val"]),
        "curves": curves,
        "seconds": 1.7,
        "diverged": diverged,
        "cost": {
            "weight_bytes": weights // 4 + 8 if ternary else weights * 4,
            "weight_bytes_fp32": weights * 4,
            "zeros": 0.31 + 0.01 * rng.random() if ternary else None,
            "int_ops": weights * 2708 if ternary else 0,
            "float_ops": 1_270_000 + (0 if ternary else weights * 2708),
        },
        "passport": {
            "bitgnn": "0.1.0",
            "torch": "2.13.0+cpu",
            "torch_geometric": "2.8.1",
            "python": "3.11.2",
            "commit": "0123abc",
            "machine": "Linux x86_64, 2 cores",
            "threads": 1,
            "time": f"2025-11-22T04:{seed:02d}:00+00:00",
        },
    }


def make_records(
    datasets=("Cora",),
    models=("gcn",),
    precisions=("fp32", "absmean", "absmedian"),
    seeds=range(10),
    diverged=(),
    **kw,
):
    r"""The records of a whole comparison; :obj:`diverged` lists (precision, seed) pairs."""
    return [
        make_record(dataset, model, precision, seed, (precision, seed) in diverged, **kw)
        for dataset in datasets
        for model in models
        for precision in precisions
        for seed in seeds
    ]


@pytest.fixture(scope="session")
def record():
    return make_record


@pytest.fixture(scope="session")
def records():
    return make_records
