"""A stand-in for torch, made of NumPy: what the locked evaluation and the small candidates of the tests call.

Importing torch takes most of the time of a container that does nothing. Tests of Docker, PID 1, clocks, limits and
recovery do not need its arithmetic, and run on an image in which `import torch` finds this package.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

float32 = np.float32
int64 = np.int64


class Tensor(np.ndarray):
    """An array with the methods of a tensor that are used here."""

    def flatten(self, start=0, end=-1):  # (a, b, c) -> (a, b * c)
        shape, end = self.shape, end % self.ndim
        return self.reshape(*shape[:start], -1, *shape[end + 1 :])

    def expand(self, *sizes):
        sizes = [own if size == -1 else size for own, size in zip(self._padded(len(sizes)), sizes, strict=True)]
        return np.broadcast_to(self, sizes).view(Tensor)

    def _padded(self, ndim):
        return (1,) * (ndim - self.ndim) + self.shape

    def float(self):
        return self.astype(np.float32)

    def numel(self):
        return self.size

    def to(self, _device):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return np.asarray(self)


def from_numpy(array):
    return np.asarray(array).view(Tensor)


def tensor(values):
    array = np.asarray(values)
    return from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)


def zeros(*shape):
    return from_numpy(np.zeros(shape, np.float32))


def arange(end):
    return from_numpy(np.arange(end))


class OutOfMemoryError(RuntimeError):
    """A device is full."""


class device:
    """Where tensors are: here."""

    def __init__(self, kind):
        self.type = kind


class cuda:
    """There is none."""

    @staticmethod
    def is_available():
        return False


@contextmanager
def inference_mode():
    yield


no_grad = inference_mode


def set_num_threads(_threads):
    """One, whatever is asked for."""


from torch import nn  # noqa: E402, F401  it needs `Tensor`
