import threading
from collections.abc import Sequence

from bitgnn.experiment.spec import RunSpec
from bitgnn.experiment.teachers import has_teacher


class Agenda:
    r"""The runs that wait to be started, for several threads that start them.

    They are handed out in their order, but for one thing: a run whose teacher is being trained
    waits for it, and lets others pass. Its process would train the same teacher once more.

    Args:
        specs (list[RunSpec]): The runs.
    """

    def __init__(self, specs: Sequence[RunSpec]) -> None:
        self._waiting = [(spec, teacher_key(spec)) for spec in specs]
        self._training: dict[str, str | None] = {}  # what runs, with the teacher it may train
        self._changed = threading.Condition()

    def take(self) -> RunSpec | None:
        """Waits for a run that can start; :obj:`None` if there is none left to start."""
        with self._changed:
            while self._waiting:
                for index, (spec, teacher) in enumerate(self._waiting):
                    if not self._in_the_making(teacher):
                        del self._waiting[index]
                        self._training[spec.key] = teacher
                        return spec
                self._changed.wait()
            return None

    def done(self, spec: RunSpec) -> None:
        """Notes that a run has ended, well or not."""
        with self._changed:
            del self._training[spec.key]
            self._changed.notify_all()

    def stop(self) -> None:
        """Leaves the runs that have not been started."""
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()

    def _in_the_making(self, teacher: str | None) -> bool:
        makers = (*self._training, *self._training.values())
        return teacher is not None and teacher in makers and not has_teacher(teacher)


def teacher_key(spec: RunSpec) -> str | None:
    """Returns the key of a run's teacher, :obj:`None` without one."""
    teacher = spec.teacher_spec()
    return None if teacher is None else teacher.key
