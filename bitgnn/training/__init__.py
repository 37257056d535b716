r"""One recipe of hyper-parameters and one full-batch training loop for both sides."""

from bitgnn.training.build import build_model
from bitgnn.training.defaults import recipe_for
from bitgnn.training.distill import Teacher
from bitgnn.training.fit import FitResult, fit
from bitgnn.training.recipe import Recipe

__all__ = ["FitResult", "Recipe", "Teacher", "build_model", "fit", "recipe_for"]
