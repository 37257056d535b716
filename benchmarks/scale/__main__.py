"""How time and memory grow with the graph: a training epoch, layer-wise inference and packed
inference, in 32 bits and ternary, over graphs with the shape of ogbn-arxiv and ogbn-products.

    python -m benchmarks.scale                       # all: 12 GiB of memory, 12 on disk
    python -m benchmarks.scale --graph arxiv         # a part of it
    python -m benchmarks.scale --part 0.01 0.02      # of smaller graphs

Graphs are random, with sources by a power law, and are written to disk in pieces; features and
edges are read from there. Each measurement takes place in a process of its own, the two sides one
after the other; one that takes more memory than `--limit` is ended, and the table says so. Writes
`results/scale.json`, `results/scale.md` and `docs/images/scale.png`, after each graph. Weights are
random, too: these are shapes only, and nothing is said of accuracy.
"""

from benchmarks.scale.cli import scale
from benchmarks.study import command_line, main

if __name__ == "__main__":
    main(command_line(__doc__, scale))
