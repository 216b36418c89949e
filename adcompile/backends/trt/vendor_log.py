"""TensorRT's own error messages, kept instead of printed: they are the reason of a refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_LONGEST = 400
_LAST = 3


class NotCreated(Exception):
    """TensorRT made no object; the text is its own reason."""


def error_log(trt: Any) -> Any:
    """A logger for *trt*; ``messages`` are its errors so far, each on one line."""

    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.messages.append(re.sub(r"\s+", " ", msg)[:_LONGEST])

    return Log()


def last_words(log: Any, otherwise: str) -> str:
    """The last errors in a log of :func:`error_log`, or *otherwise*."""
    return "; ".join(log.messages[-_LAST:]) or otherwise


def create(log: Any, make: Callable[..., Any], *arguments: Any) -> Any:
    """``make(*arguments)``, an object of TensorRT.

    Raises NotCreated where TensorRT has a null pointer for it, such as with a driver that is too old
    or without a GPU: pybind11 makes a TypeError of that in a constructor, None in a method.
    """
    try:
        made = make(*arguments)
    except TypeError as error:
        raise NotCreated(last_words(log, str(error))) from error
    if made is None:
        raise NotCreated(last_words(log, "no reason given"))
    return made
