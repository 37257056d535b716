from bitgnn.cli import options
from bitgnn.cli.output import print_record, write_json
from bitgnn.experiment.command import parse_quant
from bitgnn.experiment.compare import build_specs
from bitgnn.experiment.progress import Progress
from bitgnn.experiment.run import execute
from bitgnn.training import Recipe
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
) -> None:
    """Train one model and say how good and how large it is. Nothing is stored.

    \b
    Examples:
      bitgnn train --dataset Digits --model gcn
      bitgnn train --dataset Cora --model gat --precision fp32 --seed 3
      bitgnn train --dataset Cora --model gcn --set epochs=400 schedule=linear:0:0.5
      bitgnn train --dataset Cora --model gcn --recipe distill --set teacher=gat
    """
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
    with Progress([spec]) as progress:
        record = execute(spec, root, device, lambda epoch, val: progress.epoch(spec, epoch, val))
    print_record(record)
    if json is not None:
        write_json(json, record)
