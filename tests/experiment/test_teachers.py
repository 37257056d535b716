import pytest
import torch

from bitgnn.experiment.teachers import (
    TeacherRun,
    has_teacher,
    load_teacher,
    save_teacher,
    teachers_dir,
)
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


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "no logits"])
def test_a_file_that_is_not_sound_is_none(damage):
    import safetensors.torch

    save_teacher(KEY, make_run())
    path = teachers_dir() / f"{KEY}.safetensors"
    content = path.read_bytes()
    assert load_teacher(KEY) is not None
    if damage == "other":
        save_teacher("cd" * 32, make_run())
        content = (teachers_dir() / f"{'cd' * 32}.safetensors").read_bytes()
    elif damage == "no logits":
        about = {"key": KEY, "val": "1.0", "seconds": "1.0"}
        content = safetensors.torch.save({"state.a": torch.ones(2)}, about)
    else:
        content = content[: 0 if damage == "empty" else len(content) // 2]
    path.write_bytes(content)
    assert load_teacher(KEY) is None


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BITGNN_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"Cannot create the cache folder .* set \$BITGNN_CACHE"):
        save_teacher(KEY, make_run())
