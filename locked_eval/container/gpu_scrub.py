"""Overwrite the free memory of every visible GPU with zeros.

    python -I -S gpu_scrub.py

The driver hands memory out as it is. Data that an earlier container left there (tokens of validation rows,
gradients, a whole model) must not be readable by the next one, so this program runs between them: it allocates all
memory that the driver gives, in pieces that get smaller when no larger one fits, writes zeros and ends. Standard
library only, and the driver's own library `libcuda.so.1`: nothing to compile, no torch.

stdout gets one JSON object: `devices`, `bytes` overwritten, `seconds`, and `fraction`, the smallest share of a
device's free memory that was overwritten. With less than `NEEDED_FRACTION`, or any error of the driver, the exit
code is 1 and the last line of stderr begins with `error: `.

Not covered: registers, shared memory and caches of the processors; memory that the driver keeps for itself, such
as the local memory of a context; memory that another process holds all the while and frees later.

Tested against an imitation of the driver only. It has not run on a GPU yet.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any, NamedTuple

LIBRARY = "libcuda.so.1"
NEEDED_FRACTION = 0.98
"""Of the free memory. The rest is for the driver's granularity and fragmentation."""
SMALLEST_BYTES = 2 << 20
"""The driver maps memory in pages of 2 MiB: nothing smaller is worth requesting."""

_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


class ScrubError(Exception):
    """A failed scrub, in one sentence."""


class Scrubbed(NamedTuple):
    """Result for one device."""

    num_bytes: int
    fraction: float  # of the memory that was free


class Driver:
    """The functions of the driver's library that are needed here; their errors raise `ScrubError`."""

    def __init__(self, library: str) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise ScrubError(
                f"the driver's library is missing ({error}); is the NVIDIA container toolkit set up?"
            ) from error

    def call(self, name: str, *arguments: Any) -> None:
        """Call one function.

        Raises:
            ScrubError: the function is missing, or returned an error.
        """
        self._check(name, self.attempt(name, *arguments))

    def attempt(self, name: str, *arguments: Any) -> int:
        """Call one function; returns its code, 0 for success."""
        try:
            code: int = getattr(self._library, name)(*arguments)
        except AttributeError as error:
            raise ScrubError(f"the driver has no {name}: it is too old") from error
        return code

    def free_bytes(self) -> int:
        """Free memory of the current device."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, pointer: ctypes.c_uint64, size_bytes: int) -> bool:
        """Allocate memory of the current device; returns False when no piece of that size is free."""
        code = self.attempt("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes))
        if code == _OUT_OF_MEMORY:
            return False
        self._check("cuMemAlloc_v2", code)
        return True

    def _check(self, name: str, code: int) -> None:
        if code != 0:
            raise ScrubError(f"{name} failed: {self._error_name(code)}")

    def _error_name(self, code: int) -> str:
        text = ctypes.c_char_p()
        if self.attempt("cuGetErrorName", ctypes.c_int(code), ctypes.byref(text)) != 0 or text.value is None:
            return f"error {code}"
        return text.value.decode("ascii", "replace")


def scrub_device(driver: Driver, ordinal: int) -> Scrubbed:
    """Overwrite the free memory of one device.

    Raises:
        ScrubError: the driver returned an error.
    """
    device, context = ctypes.c_int(), ctypes.c_void_p()
    driver.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
    driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        driver.call("cuCtxSetCurrent", context)
        return _scrub_current(driver)
    finally:
        driver.attempt("cuDevicePrimaryCtxRelease_v2", device)


def _scrub_current(driver: Driver) -> Scrubbed:
    free_before = driver.free_bytes()
    held: list[ctypes.c_uint64] = []
    covered = 0
    try:
        # From the largest down: a size that does not fit now does not fit later either, as nothing is released.
        size = 1 << max(free_before, SMALLEST_BYTES).bit_length()
        while size >= SMALLEST_BYTES:
            pointer = ctypes.c_uint64()
            if not driver.allocate(pointer, size):
                size //= 2
                continue
            held.append(pointer)
            driver.call("cuMemsetD8_v2", pointer, ctypes.c_ubyte(0), ctypes.c_size_t(size))
            covered += size
        driver.call("cuCtxSynchronize")  # errors of the writes surface here
        # Memory of a killed process may become free only now: it counts as memory that was missed.
        free = max(free_before, covered + driver.free_bytes())
    finally:
        for pointer in held:
            driver.attempt("cuMemFree_v2", pointer)
    return Scrubbed(covered, covered / free if free else 1.0)


def main(library: str = LIBRARY) -> int:
    """Scrub every visible device; returns the exit code."""
    began = time.monotonic()
    try:
        driver = Driver(library)
        driver.call("cuInit", ctypes.c_uint(0))
        count = ctypes.c_int()
        driver.call("cuDeviceGetCount", ctypes.byref(count))
        if count.value < 1:
            raise ScrubError("no GPU is visible")
        done = [scrub_device(driver, ordinal) for ordinal in range(count.value)]
    except ScrubError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    fraction = min(one.fraction for one in done)
    facts = {
        "devices": len(done),
        "bytes": sum(one.num_bytes for one in done),
        "seconds": round(time.monotonic() - began, 3),
        "fraction": round(fraction, 5),
    }
    print(json.dumps(facts), flush=True)
    if fraction < NEEDED_FRACTION:
        print(
            f"error: only {fraction:.1%} of a GPU's free memory was overwritten; does another program use it?",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
