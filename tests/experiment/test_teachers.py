import pytest
import safetensors.torch
import torch

from bitgnn.experiment.teachers import (
    TeacherRun,
    has_teacher,
    load_teacher,
    save_teacher,
    teachers_dir,
)
from bitgnn.tensor_file import to_bytes
from bitgnn.training import Teacher

KEY = "ab" * 32


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "cache"))


def make_run():
    shared = torch.randn(3, 4)
    state = {"a.weight": shared, "b.weight": shared, "count": torch.tensor(3), "t": shared.t()}
    return TeacherRun(Teacher(torch.randn(5, 3), state), 81.25, 1.5)


def test_round_trip_is_exact():
    run = make_run()
    assert not has_teacher(KEY)
    assert load_teacher(KEY) is None
    save_teacher(KEY, run)
    assert has_teacher(KEY)
    found = load_teacher(KEY)
    assert (found.val, found.seconds) == (81.25, 1.5)
    assert torch.equal(found.teacher.logits, run.teacher.logits)
    assert found.teacher.state.keys() == run.teacher.state.keys()
    for name, value in run.teacher.state.items():
        assert torch.equal(found.teacher.state[name], value)
        assert found.teacher.state[name].dtype == value.dtype


def test_a_diverged_run_teaches_nothing():
    save_teacher(KEY, TeacherRun(None, None, 0.5))
    assert load_teacher(KEY) == TeacherRun(None, None, 0.5)


def test_nothing_is_left_beside_the_file():
    save_teacher(KEY, make_run())
    save_teacher(KEY, make_run())
    assert [path.name for path in teachers_dir().iterdir()] == [f"{KEY}.safetensors"]


def write(content):
    (teachers_dir() / f"{KEY}.safetensors").write_bytes(content)


def test_no_flipped_bit_is_used():
    save_teacher(KEY, make_run())
    content = (teachers_dir() / f"{KEY}.safetensors").read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        write(damaged)
        with pytest.warns(UserWarning, match=f"Teacher '.*{KEY}.*' is not used .* trained again"):
            assert load_teacher(KEY) is None
    write(content)
    assert load_teacher(KEY) is not None


ABOUT = {"key": KEY, "val": "1.0", "seconds": "1.0"}
LOGITS = {"logits": torch.ones(2, 3)}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "deserializ"),
        (to_bytes(LOGITS, ABOUT)[:-3], "deserializ"),
        (to_bytes(LOGITS, {**ABOUT, "key": "cd" * 32}), "another run's"),
        (to_bytes({"state.a": torch.ones(2)}, ABOUT), "logits"),
        (to_bytes(LOGITS, {"key": KEY, "val": "1.0"}), "seconds"),
        (to_bytes(LOGITS, {**ABOUT, "val": "{"}), "Expecting"),
        (to_bytes(LOGITS, {**ABOUT, "val": '"high"'}), "numbers"),
        (to_bytes(LOGITS, {"val": "1.0", "seconds": "1.0"}), "key"),
        (safetensors.torch.save(LOGITS, ABOUT), "no checksum"),
    ],
)
def test_a_file_that_is_not_sound_is_none(content, problem):
    save_teacher(KEY, make_run())
    write(content)
    with pytest.warns(UserWarning, match=f"is not used .*{problem}.* trained again"):
        assert load_teacher(KEY) is None


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"Cannot create the cache folder .* set \$BITGNN_CACHE"):
        save_teacher(KEY, make_run())
