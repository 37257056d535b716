import torch
from torch import Tensor, nn

from bitgnn.data import Task
from bitgnn.training.inputs import model_inputs
from bitgnn.training.recipe import Recipe


@torch.no_grad()
def predict(
    model: nn.Module, t: Task, recipe: Recipe, device: str | torch.device = "cpu"
) -> Tensor:
    r"""Returns the logits of all nodes, in evaluation.

    Args:
        model (torch.nn.Module): The model.
        t (Task): The data set.
        recipe (Recipe): The hyper-parameters.
        device (str or torch.device, optional): Where the model is. (default: :obj:`"cpu"`)
    """
    return model.eval()(*model_inputs(model, t, recipe, device))
