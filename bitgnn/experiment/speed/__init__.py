"""How fast packed models are beside PyG's, on the machine at hand."""

from bitgnn.experiment.speed.case import Case
from bitgnn.experiment.speed.race import Failed, Result, race
from bitgnn.experiment.speed.table import FOOTNOTE, setting, speed_table

__all__ = ["FOOTNOTE", "Case", "Failed", "Result", "race", "setting", "speed_table"]
