import threading
from dataclasses import replace

import pytest

from bitgnn.experiment import RunSpec
from bitgnn.experiment.agenda import Agenda, teacher_key
from bitgnn.experiment.teachers import TeacherRun, save_teacher

RECIPE = {"lr": 0.1}


def full(seed):
    return RunSpec("Cora", "public", "00", "gcn", "fp32", None, RECIPE, seed)


def student(seed, precision="absmean"):
    teacher = {"model": "gcn", "recipe": RECIPE}
    return replace(full(seed), precision=precision, quant={}, teacher=teacher)


def take(agenda):
    r"""What is handed out, for a test that must not hang where it should fail."""
    taken = []
    thread = threading.Thread(target=lambda: taken.append(agenda.take()), daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert taken, "nothing was handed out"
    return taken[0]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path))


def test_runs_without_teachers_keep_their_order():
    specs = [full(seed) for seed in (2, 0, 1)]
    agenda = Agenda(specs)
    assert [take(agenda) for _ in range(4)] == [*specs, None]


def test_a_student_lets_others_pass_until_its_teacher_is_there():
    agenda = Agenda([full(0), student(0), full(1), student(1)])
    assert take(agenda) == full(0)
    assert take(agenda) == full(1)  # student(0) would train full(0) once more.
    agenda.done(full(0))
    assert take(agenda) == student(0)
    agenda.done(full(1))
    assert take(agenda) == student(1)


def test_of_two_students_the_first_trains_the_teacher():
    agenda = Agenda([student(0), student(0, "absmedian"), student(1)])
    assert take(agenda) == student(0)
    assert take(agenda) == student(1)
    save_teacher(teacher_key(student(0)), TeacherRun(None, None, 0.0))
    assert take(agenda) == student(0, "absmedian")


def test_who_can_do_nothing_waits_for_a_run_to_end():
    agenda, taken = Agenda([full(0), student(0)]), []
    assert agenda.take() == full(0)
    thread = threading.Thread(target=lambda: taken.append(agenda.take()))
    thread.start()
    thread.join(timeout=0.2)
    assert thread.is_alive()
    agenda.done(full(0))
    thread.join(timeout=60)
    assert taken == [student(0)]


def test_after_a_stop_nothing_is_handed_out():
    specs = [full(0), student(0), full(1)]
    agenda = Agenda(specs)
    assert take(agenda) == specs[0]
    assert take(agenda) == specs[2]
    waiting = []
    thread = threading.Thread(target=lambda: waiting.append(agenda.take()), daemon=True)
    thread.start()  # The student waits for its teacher.
    agenda.stop()
    thread.join(timeout=10)
    assert waiting == [None]
    agenda.done(specs[0])
    assert take(agenda) is None
