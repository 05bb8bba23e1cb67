"""Modules of the stand-in: nothing but a forward pass."""

from torch import Tensor
from torch.nn import functional  # noqa: F401


class Module:
    """Calls `forward`."""

    def __call__(self, *arguments):
        return self.forward(*arguments)

    def eval(self):
        return self

    def to(self, _device):
        return self


def Parameter(values):
    return values.view(Tensor)
