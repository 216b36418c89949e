"""TensorRT's own error messages, kept instead of printed: they are the reason of a refusal."""

from __future__ import annotations

import re
from typing import Any

_LONGEST = 400


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
