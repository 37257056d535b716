from importlib import import_module

import pytest

from bitgnn.experiment.speed.case import Case
from bitgnn.experiment.speed.processes import Failed, Process
from bitgnn.experiment.speed.race import race
from bitgnn.experiment.speed.sides import Side
from bitgnn.kernels import native

races = import_module("bitgnn.experiment.speed.race")
MS = {"packed": 1.0, "packed 32-bit": 2.0, "packed dense x": 1.5, "CSR": 8.0}


class Machine:
    """Stands in for processes: each side takes what `ms` says, a little more with each turn."""

    def __init__(self, ms, failing=()):
        self.ms, self.failing, self.turns, self.open = ms, failing, [], 0

    def __call__(self, case, side, threads, root):
        if side.form in self.failing:
            raise Failed("there is no such module")
        self.open += 1
        return Turn(self, side)


class Turn:
    def __init__(self, machine, side):
        self.machine, self.side, self.drift = machine, side, 0.0

    def ask(self, do, **order):
        first = {"mib": 10.0, "prepare_ms": 0.5 if "packed" in self.side.form else None}
        return first if do == "first" else {"seconds": [self.turn(1.0)]}

    def turn(self, seconds):
        self.machine.turns.append(self.side.name)
        self.drift += 0.01
        slower = {"default": 2.0, "huge pages": 1.0, "retained": 1.5}[self.side.allocator]
        ms = self.machine.ms.get(self.side.form, 20.0)
        return (ms if "packed" in self.side.form else ms * slower) * (1 + self.drift) / 1e3

    def close(self):
        self.machine.open -= 1


def test_a_race(monkeypatch):
    machine = Machine(MS, failing=("SparseTensor",))
    monkeypatch.setattr(races, "Process", machine)
    told = []
    result = race(Case("gcn", "Cora"), 2, seconds=1.0, tell=told.append)
    assert result.fastest == Side("CSR", "huge pages")
    assert 5 <= result.rounds <= 41 and machine.open == 0
    finalists = {"CSR, huge pages", "CSR, retained"}
    assert set(result.ms) == {"packed", "packed 32-bit", "edge_index"} | finalists
    row = result.row()
    assert row["vs_fastest"] == pytest.approx(8.0) and row["vs_edge_index"] == pytest.approx(40.0)
    assert row["vs_fp32_fused"] == pytest.approx(2.0)
    assert row["ours_ms"] == pytest.approx(1.0, rel=0.3) and row["prepare_ms"] == 0.5
    assert row["fastest_path"] == "CSR, huge pages" and row["leanest_peak_mib"] == 10.0
    failed = [heat for heat in row["heats"] if heat["error"]]
    assert {heat["path"].split(",")[0] for heat in failed} == {"SparseTensor"}
    assert {heat["error"] for heat in failed} == {"there is no such module"}
    assert any("round 2 of" in line for line in told)


def test_sides_take_turns(monkeypatch):
    machine = Machine(MS)
    monkeypatch.setattr(races, "Process", machine)
    result = race(Case("gcn", "arxiv"), 2, compiled=False, seconds=0.0)
    rounds = machine.turns[-5 * result.rounds :]
    assert result.rounds == 5
    for k in range(result.rounds):
        assert len(set(rounds[5 * k : 5 * k + 5])) == 5
    # None of them is always the first.
    assert len({rounds[5 * k] for k in range(5)}) == 5


def test_huge_pages_that_are_gone(monkeypatch):
    # By itself an allocator with huge pages is the fastest, but not beside other processes.
    class Fragmented(Machine):
        def __call__(self, case, side, threads, root):
            turn = super().__call__(case, side, threads, root)
            if self.open > 1 and side.allocator == "huge pages":
                turn.drift = 9.0
            return turn

    monkeypatch.setattr(races, "Process", Fragmented(MS))
    result = race(Case("gcn", "Cora"), 2, seconds=1.0)
    assert result.finalists == [Side("CSR", "huge pages"), Side("CSR", "retained")]
    assert result.fastest == Side("CSR", "retained")
    assert result.row()["vs_fastest"] == pytest.approx(12.0)


def test_a_race_of_training_steps(monkeypatch):
    machine = Machine({"ternary": 2.0, "bitgnn 32-bit": 4.0, "CSR": 6.0, "edge_index": 30.0})
    monkeypatch.setattr(races, "Process", machine)
    result = race(Case("gcn", "arxiv", train=True), 2, seconds=1.0)
    names = {"ternary, retained", "bitgnn 32-bit, retained", "edge_index"}
    assert set(result.ms) == names | {"CSR, huge pages", "CSR, retained"}
    row = result.row()
    assert row["model"] == "gcn 2 x 64, training step" and row["prepare_ms"] is None
    assert row["vs_fastest"] == pytest.approx(2.0) and row["vs_edge_index"] == pytest.approx(20.0)
    assert row["vs_fp32_fused"] == pytest.approx(2.0)


@pytest.mark.parametrize("form", ["packed", "edge_index"])
def test_what_there_is_no_race_without(monkeypatch, form):
    monkeypatch.setattr(races, "Process", Machine(MS, failing=(form,)))
    with pytest.raises(Failed, match=f"gcn 2 x 64 on Cora, {form}: there is no such module"):
        race(Case("gcn", "Cora"), 2)


@pytest.mark.skipif(not native.enabled(), reason="There are no native kernels")
def test_memory_of_a_call():
    # The output of the model alone: 169,343 rows of 40 numbers.
    process = Process(Case("mlp", "arxiv", 2, 8), Side("packed"), 1)
    try:
        assert 26 <= process.ask("first")["mib"] <= 60
    finally:
        process.close()


def test_processes():
    process = Process(Case("gcn", "request", 2, 8), Side("edge_index"), 1)
    try:
        first = process.ask("first")
        assert first["seconds"] > 0 and first["mib"] >= 0 and first["prepare_ms"] is None
        assert process.turn(first["seconds"]) > 0
        with pytest.raises(Failed, match="AttributeError: 'Worker' object has no attribute 'sing'"):
            process.ask("sing")
        other = Process(Case("gcn", "request", 2, 8), Side("packed"), 1)
        assert other.pid != process.pid and other.ask("run", count=3, warm=True)["seconds"]
        other.close()
        with pytest.raises(Failed, match="the process ended, perhaps for want of memory"):
            other.ask("run", count=1, warm=False)
    finally:
        process.close()
    with pytest.raises(Failed, match="There is no data set 'Atlantis'"):
        Process(Case("gcn", "Atlantis"), Side("edge_index"), 1)
