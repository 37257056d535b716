"""Models and graphs in several threads, from the first call on. In a process of its own, so that a
crash is seen and not suffered."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from bitgnn.nn import BitGAT, BitGCN, BitGraphSAGE
from bitgnn.packed import pack, prepare

THREADS, ROUNDS = 4, 10
NODES, EDGES = 20_000, 300_000  # What is freed of this size goes back to the system at once.


def stress() -> None:
    """Threads that meet at the first use of each graph and model; the outputs must be equal to
    those of one thread."""
    torch.manual_seed(12)
    torch.set_num_threads(1)
    x = torch.randn(NODES, 16)
    models = [build(16, 33, 2, 20).eval() for build in (BitGCN, BitGraphSAGE, BitGAT)]
    programs = [pack(model).program for model in models]
    start = threading.Barrier(THREADS)

    def once(graph, packed, edges):
        start.wait()
        # Outputs of more than a mebibyte, whose memory is used again.
        prepared = [packed(x, graph) for packed in packed]
        del prepared[0]
        return [*prepared, packed[0](x, graph), packed[1](x, edges)]

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(ROUNDS):
            edges = torch.randint(NODES, (2, EDGES))
            graph, packed = prepare(edges, NODES), [type(pack(models[0]))(p) for p in programs]
            jobs = [pool.submit(once, graph, packed, edges) for _ in range(THREADS)]
            found = [job.result() for job in jobs]
            graph = prepare(edges, NODES)
            expected = [packed[k](x, graph) for k in (1, 2, 0, 1)]
            for outputs in found:
                assert all(map(torch.equal, outputs, expected)), "threads change numbers"


def test_threads_at_the_first_use():
    ended = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import stress; stress()"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
