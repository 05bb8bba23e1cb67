"""Error messages of Python and torch: quoted on every other page about programming, so they are no secret.

A corpus of web pages contains these sentences, and a proposer needs them to fix a program, so a log may repeat
them. Digits do not matter, and names within a message may differ. The list is not complete: a message that is
missing here is withheld from a log if the corpus quotes it. The program's own frames of a traceback always stay.
"""

from __future__ import annotations

import re

_MESSAGES = r"""
Traceback (most recent call last):
During handling of the above exception, another exception occurred:
The above exception was the direct cause of the following exception:
torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of
  79.15 GiB of which 5.25 MiB is free. Including non-PyTorch memory, this process has 79.13 GiB memory in use.
  Of the allocated memory 77.96 GiB is allocated by PyTorch, and 674.73 MiB is reserved by PyTorch but
  unallocated. If reserved but unallocated memory is large try setting
  PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation. See documentation for Memory
  Management (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)
torch.OutOfMemoryError: CUDA out of memory.
RuntimeError: CUDA error: device-side assert triggered
RuntimeError: CUDA error: an illegal memory access was encountered
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be
  incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x128 and 256x512)
RuntimeError: mat1 and mat2 must have the same dtype, but got Float and BFloat16
RuntimeError: expected scalar type Float but found BFloat16
RuntimeError: expected m1 and m2 to have the same dtype, but got: float != c10::BFloat16
RuntimeError: The size of tensor a (128) must match the size of tensor b (64) at non-singleton dimension 1
RuntimeError: Sizes of tensors must match except in dimension 1. Expected size 64 but got size 32 for tensor
  number 1 in the list.
RuntimeError: shape '[64, 128, 4, 16]' is invalid for input of size 524288
RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!
RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn
RuntimeError: one of the variables needed for gradient computation has been modified by an inplace operation:
  [torch.FloatTensor [64, 128]], which is output 0 of AddmmBackward0, is at version 2; expected version 1
  instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, with
  torch.autograd.set_detect_anomaly(True).
RuntimeError: Trying to backward through the graph a second time (or directly access saved tensors after they
  have already been freed). Saved intermediate values of the graph are freed when you call .backward() or
  autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second time or if you
  need to access saved tensors after calling backward.
RuntimeError: a leaf Variable that requires grad is being used in an in-place operation.
RuntimeError: a view of a leaf Variable that requires grad is being used in an in-place operation.
RuntimeError: view size is not compatible with input tensor's size and stride (at least one dimension spans
  across two contiguous subspaces). Use .reshape(...) instead.
RuntimeError: Error(s) in loading state_dict for GPT: Missing key(s) in state_dict: Unexpected key(s) in
  state_dict: size mismatch for weight: copying a param with shape torch.Size([64]) from checkpoint, the shape
  in current model is torch.Size([32]).
IndexError: index out of range in self
IndexError: Dimension out of range (expected to be in range of [-1, 0], but got 1)
ValueError: optimizer got an empty parameter list
ValueError: some parameters appear in more than one parameter group
ValueError: not enough values to unpack (expected 3, got 2)
ValueError: too many values to unpack (expected 2)
AttributeError: 'NoneType' object has no attribute 'shape'
TypeError: 'NoneType' object is not subscriptable
TypeError: unsupported operand type(s) for +: 'int' and 'NoneType'
TypeError: forward() missing 1 required positional argument: 'x'
TypeError: forward() takes 2 positional arguments but 3 were given
TypeError: __init__() got an unexpected keyword argument 'bias'
ModuleNotFoundError: No module named 'flash_attn'
FileNotFoundError: [Errno 2] No such file or directory:
OSError: [Errno 28] No space left on device
OSError: [Errno 30] Read-only file system:
UserWarning: The given NumPy array is not writable, and PyTorch does not support non-writable tensors. This
  means writing to this tensor will result in undefined behavior. You may want to copy the array to protect
  its data or make it writable before converting it to a tensor. This type of warning will be suppressed for
  the rest of this program. (Triggered internally at ../torch/csrc/utils/tensor_numpy.cpp:206.)
UserWarning: Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and later, you
  should call them in the opposite order: `optimizer.step()` before `lr_scheduler.step()`. Failure to do this
  will result in PyTorch skipping the first value of the learning rate schedule.
torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of
  79.15 GiB of which 1.25 GiB is free.
"""


def known_messages() -> list[bytes]:
    """List the messages; line breaks within one do not matter."""
    return [message.encode() for message in re.split(r"\n(?! )", _MESSAGES.strip())]
