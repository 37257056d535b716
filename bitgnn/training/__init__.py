r"""One recipe of hyper-parameters and one training loop for both sides."""

from bitgnn.training.build import build_model
from bitgnn.training.checkpoint import Checkpoint
from bitgnn.training.defaults import recipe_for
from bitgnn.training.distill import Teacher
from bitgnn.training.fit import fit
from bitgnn.training.recipe import Recipe
from bitgnn.training.state import FitResult

__all__ = ["Checkpoint", "FitResult", "Recipe", "Teacher", "build_model", "fit", "recipe_for"]
