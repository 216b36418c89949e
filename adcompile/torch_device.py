"""Where torch trains, and how a GPU gives the same bytes every time.

Initial weights, batches and noise are drawn by generators of the CPU, so that they are the same
wherever the training runs; only dropout's masks come from the device's own generator. A GPU adds
in another order than a CPU, so the two give close weights, never equal ones.
"""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch

from adcompile.errors import InputError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
"""cuBLAS reads it when it starts; without it torch refuses matrix products that must be
deterministic."""
CUBLAS_DETERMINISTIC = ":4096:8"


def choose_device(wanted: str) -> torch.device:
    """The device for ``auto`` (the first GPU where torch sees one, else the CPU), ``cpu``,
    ``cuda`` (the first) or ``cuda:N``.

    Raises InputError for a GPU that is not there.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    os.environ.setdefault(CUBLAS, CUBLAS_DETERMINISTIC)  # before anything starts CUDA
    count, reason = _gpus()
    if wanted == "auto":
        return torch.device("cuda", 0) if count else torch.device("cpu")
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise InputError(f"no device is called {wanted!r}", fix="auto, cpu, cuda or cuda:N")
    index = int(number or 0)
    if index >= count:
        raise InputError(
            "there is no such GPU to train on",
            where=f"device {wanted}",
            why=reason or f"torch sees {count}",
            fix="--device auto or --device cpu",
        )
    return torch.device("cuda", index)


def _gpus() -> tuple[int, str]:
    """How many GPUs torch can use; why there is none."""
    with warnings.catch_warnings(record=True) as said:  # an old driver is only warned of
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return torch.cuda.device_count(), ""
    if torch.version.cuda is None:
        return 0, f"torch {torch.__version__} was built without CUDA"
    heard = " ".join(str(warning.message) for warning in said)
    return 0, " ".join(heard.split())[:300] or "torch sees no NVIDIA GPU"


def describe(device: torch.device) -> str:
    """``cpu``, or the GPU's number and name."""
    if device.type != "cuda":
        return device.type
    return f"{device} ({torch.cuda.get_device_name(device)})"


@contextmanager
def reproducible(device: torch.device) -> Generator[None]:
    """Inside, the same work on *device* gives the same bits: deterministic kernels only, full
    float32 (no TF32), no choice of kernels by their speed. All settings come back afterwards.

    A CPU needs nothing. Raises InputError for what a GPU cannot do: memory, missing kernels.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(CUBLAS, CUBLAS_DETERMINISTIC)
    with ExitStack() as stack:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch 2.9 has newer names for TF32, older ones not
            _settle(stack)
        try:
            yield
        except RuntimeError as error:
            raise _explained(error, device) from error


def _settle(stack: ExitStack) -> None:
    """Make torch's settings those of :func:`reproducible`; *stack* puts the old ones back."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    stack.callback(setattr, products, "allow_tf32", products.allow_tf32)
    stack.callback(
        torch.use_deterministic_algorithms,
        torch.are_deterministic_algorithms_enabled(),
        warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    products.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=False)
    stack.enter_context(
        convolutions.flags(
            enabled=convolutions.enabled, benchmark=False, deterministic=True, allow_tf32=False
        )
    )


def _explained(error: RuntimeError, device: torch.device) -> Exception:
    """What a user can do about a GPU's error; any other error as it is."""
    text = str(error)
    what, fix = "", ""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        what, fix = "the GPU has too little memory", "a smaller --batch, or --device cpu"
    elif CUBLAS in text:
        what = "the GPU cannot repeat its matrix products"
        fix = f"{CUBLAS}={CUBLAS_DETERMINISTIC} in the environment, before CUDA is used"
    elif "CUDA error" in text:
        what, fix = "the GPU failed", "a torch build for this GPU and driver, or --device cpu"
    if not what:
        return error
    return InputError(what, where=str(device), why=" ".join(text.split())[:300], fix=fix)
