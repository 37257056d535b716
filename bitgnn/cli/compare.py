from pathlib import Path

import typer

from bitgnn.cli import options
from bitgnn.cli.output import print_comparison, write_json
from bitgnn.cli.streams import print_error
from bitgnn.experiment.command import parse_quant, parse_seeds
from bitgnn.experiment.compare import compare as run_comparison
from bitgnn.experiment.workers import RunError
from bitgnn.files import check_writable
from bitgnn.training import Recipe
from bitgnn.training.parts import quant_for
from bitgnn.training.settings import parse_settings


def compare(
    dataset: options.Datasets,
    model: options.Models,
    precision: options.Precisions = None,
    seeds: options.Seeds = "10",
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    quant: options.Quant = None,
    split: options.Split = None,
    store: options.StoreFile = None,
    out: options.Out = Path("bitgnn-report"),
    json: options.Json = None,
    root: options.Root = None,
    device: options.Device = "cpu",
    workers: options.Workers = None,
) -> None:
    """Train ternary and 32-bit models on the same seeds and splits, and compare them.

    Every finished run is stored at once: the same command goes on where it was stopped, and
    trains nothing twice.

    \b
    Examples:
      bitgnn compare --dataset Digits --model gcn mlp --seeds 3
      bitgnn compare --dataset Cora CiteSeer --model gcn sage gat sgc mlp --seeds 10
      bitgnn compare --dataset Cora --model gcn --set lr=0.005 hidden_channels=128
      bitgnn compare --dataset Cora --model gcn --recipe distill+channel
      bitgnn compare --dataset Cora --model sgc gcn --recipe paper --quant reloaded
      bitgnn compare --dataset PubMed --model gat --device cuda --json rows.json
    """
    if json is not None:
        check_writable(json)
    try:
        comparison = run_comparison(
            dataset,
            model,
            parse_seeds(seeds),
            recipe,
            precision,
            store=store,
            out=out,
            root=root,
            split=split,
            device=device,
            workers=workers,
            quant=parse_quant(quant or [], quant_for(recipe)),
            settings=parse_settings(settings or [], Recipe),
        )
    except KeyboardInterrupt:
        print_error("Stopped. What is finished is stored: the same command goes on here.")
        raise typer.Exit(130) from None
    except RunError as error:
        print_error(f"bitgnn: {error}")
        raise typer.Exit(1) from None
    if json is not None:  # Before the output, whose reader may leave early.
        write_json(json, comparison.rows)
    print_comparison(comparison)
    print(f"Report: {comparison.report}")
    if comparison.failures:
        raise typer.Exit(1)
