from pathlib import Path
from typing import Annotated

from typer import Option

from bitgnn.training.parts import PARTS

Datasets = Annotated[
    list[str], Option("--dataset", metavar="NAME...", help="Data sets; see `bitgnn datasets`.")
]
Models = Annotated[list[str], Option("--model", metavar="NAME...", help="gcn sage gat sgc mlp")]
Dataset = Annotated[str, Option("--dataset", metavar="NAME", help="See `bitgnn datasets`.")]
Model = Annotated[str, Option("--model", metavar="NAME", help="gcn, sage, gat, sgc or mlp.")]
Precisions = Annotated[
    list[str] | None,
    Option(
        "--precision",
        metavar="NAME...",
        help="fp32 (32-bit), fp32-distilled (32-bit with the recipe's teacher), absmean, "
        "absmedian, absmax; else fp32, absmean, absmedian and, where there is a teacher, "
        "fp32-distilled.",
    ),
]
Precision = Annotated[
    str,
    Option(
        "--precision",
        metavar="NAME",
        help="fp32 (32-bit), fp32-distilled (32-bit with the recipe's teacher), absmean, "
        "absmedian or absmax.",
    ),
]
Seeds = Annotated[
    str, Option("--seeds", metavar="N", help="How many from 0, or which: 5:8 or 4,9.")
]
Seed = Annotated[int, Option("--seed", metavar="N", help="Of split, weights and dropout.", min=0)]
RecipeName = Annotated[
    str,
    Option(
        "--recipe",
        metavar="NAME",
        help="Published hyper-parameters with parts that + joins, as in continual+distill: "
        f"{'; '.join(f'{name} ({part.about})' for name, part in PARTS.items())}. Or default; or "
        "paper (arXiv 2411.05882: last epoch, no selection).",
    ),
]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="NAME=VALUE...",
        help="Change the recipe: lr=0.005 hidden_channels=128 schedule=linear:0:0.5",
    ),
]
Quant = Annotated[
    list[str] | None,
    Option(
        "--quant",
        metavar="WORD...",
        help="How ternary models quantize: a preset (b158, reloaded), settings such as "
        "activation_bits=4 granularity=channel, or both. Settings alone change what the recipe "
        "says.",
    ),
]
Split = Annotated[
    str | None,
    Option("--split", metavar="KIND", help="public, full, published or random; else the set's own"),
]
Root = Annotated[
    Path | None,
    Option("--root", metavar="DIR", help="Where to look for data first, before $BITGNN_DATA."),
]
Device = Annotated[str, Option("--device", metavar="NAME", help="cpu, cuda, cuda:0, ...")]
Workers = Annotated[
    int | None,
    Option(
        "--workers",
        metavar="N",
        help="Processes; changes no number. Else one a core, on a GPU one.",
        min=1,
    ),
]
Checkpoint = Annotated[
    Path | None,
    Option("--checkpoint", metavar="DIR", help="Where runs leave what they need to go on."),
]
Resume = Annotated[
    bool, Option("--resume", help="Go on from the checkpoint, if there is one already.")
]
EveryEpochs = Annotated[
    int | None, Option("--every-epochs", metavar="N", help="Write it after so many epochs.", min=1)
]
EveryMinutes = Annotated[
    float,
    Option("--every-minutes", metavar="N", help="Else, after so many minutes.", min=0.0),
]
Distributed = Annotated[
    bool, Option("--distributed", help="One of several processes that torchrun has started.")
]
Threads = Annotated[
    int, Option("--threads", metavar="N", help="Of each process; sums may round otherwise.", min=1)
]
StoreFile = Annotated[
    Path | None,
    Option(
        "--store",
        metavar="FILE",
        help="The result store; else $BITGNN_STORE or ./bitgnn-results.sqlite.",
    ),
]
Out = Annotated[Path, Option("--out", metavar="DIR", help="Where the report goes.")]
Json = Annotated[Path | None, Option("--json", metavar="FILE", help="Write results as JSON too.")]
