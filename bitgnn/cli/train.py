from contextlib import nullcontext

from bitgnn.cli import options
from bitgnn.cli.output import print_record, write_json
from bitgnn.experiment.checks import warn
from bitgnn.experiment.command import parse_quant
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.progress import Progress
from bitgnn.experiment.run import train_run
from bitgnn.files import check_writable
from bitgnn.training import Recipe
from bitgnn.training.checkpoint import Checkpoints
from bitgnn.training.distributed import ALONE, join
from bitgnn.training.parts import quant_for
from bitgnn.training.settings import parse_settings


def train(
    dataset: options.Dataset,
    model: options.Model,
    precision: options.Precision = "absmean",
    seed: options.Seed = 0,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    quant: options.Quant = None,
    split: options.Split = None,
    json: options.Json = None,
    root: options.Root = None,
    device: options.Device = "cpu",
    checkpoint: options.Checkpoint = None,
    resume: options.Resume = False,
    every_epochs: options.EveryEpochs = None,
    every_minutes: options.EveryMinutes = 5.0,
    distributed: options.Distributed = False,
    threads: options.Threads = 1,
) -> None:
    """Train one model and say how good and how large it is.

    With --checkpoint, a run that was stopped goes on with --resume, to the same numbers.

    \b
    Examples:
      bitgnn train --dataset Digits --model gcn
      bitgnn train --dataset Cora --model gat --precision fp32 --seed 3
      bitgnn train --dataset Cora --model gcn --set epochs=400 schedule=linear:0:0.5
      bitgnn train --dataset Cora --model gcn --recipe distill --set teacher=gat
      bitgnn train --dataset PubMed --model sage --set batch=random num_parts=8
      bitgnn train --dataset Cora --model gat --checkpoint runs --resume
      torchrun --nproc-per-node 2 -m bitgnn train --dataset PubMed --model sage \\
          --set batch=random --distributed --checkpoint runs --resume
    """
    if json is not None:
        check_writable(json)
    [spec] = build_specs(
        dataset,
        model,
        [seed],
        recipe,
        precision,
        root,
        split,
        parse_quant(quant or [], quant_for(recipe)),
        parse_settings(settings or [], Recipe),
    )
    if resume and checkpoint is None:
        raise ValueError("--resume goes on from a checkpoint: say where it is with --checkpoint")
    place = (
        None if checkpoint is None else Checkpoints(checkpoint, resume, every_epochs, every_minutes)
    )
    with join(device) if distributed else nullcontext(ALONE) as group:
        first = group.rank == 0
        if first:
            warn([spec], root)
        with Progress([spec], enabled=first) as progress:
            _, record = train_run(
                spec,
                root,
                group.device if distributed else device,
                lambda epoch, val: progress.epoch(spec, epoch, val),
                checkpoints=place,
                group=group,
                threads=threads,
            )
        if first:
            if json is not None:  # Before the output, whose reader may leave early.
                write_json(json, record)
            print_record(record)
