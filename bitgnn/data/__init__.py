r"""One door to every data set: :func:`task` gives graph, splits and metric."""

from bitgnn.data.locate import DataNotFoundError
from bitgnn.data.splits import Split
from bitgnn.data.task import Task, TaskInfo, available, task

__all__ = ["DataNotFoundError", "Split", "Task", "TaskInfo", "available", "task"]
