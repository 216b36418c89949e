"""Runs an NPU part: on the VitisAI execution provider where it is, else simulated on the CPU."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from adcompile.backends.npu.report import Line, compare, find_report, read_report
from adcompile.backends.npu.session import INSTALL, PROVIDER, cache_identity, encryption
from adcompile.backends.simulation import (
    PartSessions,
    bundle_file,
    simulate,
    threads_of,
)
from adcompile.errors import FormatError, ToolMissing, UsageError
from adcompile.manifest import PartRecord, file_sha256
from adcompile.runtime.executor import Array
from adcompile.runtime.session import Session, available_providers, open_session, runtime

_INSTALL_VARIABLE = "RYZEN_AI_INSTALLATION_PATH"
_MODES = ("auto", "npu", "cpu")


class NpuExecutor:
    """Options: ``device`` (auto, npu, cpu), ``require_device``, ``no_cpu_fallback``, ``cache_dir``,
    ``driver`` (its version, part of the cache identity), ``encryption_key`` (of the cached model; kept
    nowhere), ``threads``."""

    family: ClassVar[str] = "npu"

    def __init__(self) -> None:
        self.simulated = True
        self.where = "not opened"
        self.fell_back = False
        self.placement: list[Line] = []
        self._sessions: PartSessions | None = None

    def open(self, part: PartRecord, bundle: Path, options: Mapping[str, str]) -> None:
        """Open the part. Raises ToolMissing when the NPU is required and its provider is absent."""
        mode = options.get("device", "auto")
        if mode not in _MODES:
            raise UsageError(f"unknown device {mode!r}", fix=f"one of {', '.join(_MODES)}")
        present = PROVIDER in available_providers()
        strict = options.get("no_cpu_fallback") == "true"
        required = options.get("require_device") == "true" or mode == "npu" or strict
        if required and not present:
            raise ToolMissing(
                f"this ONNX Runtime has no {PROVIDER}",
                where=f"part {part.name!r}",
                why="it has: " + ", ".join(available_providers()),
                fix="install Ryzen AI, or run the CPU simulation",
            )
        if present and mode != "cpu":
            self._sessions = self._open_device(part, bundle, options)
            self.simulated = False
            self.where = self._described()
        else:
            self._sessions = simulate(part, bundle, options)
            self.simulated = True
            chip = part.options.get("chip", "npu")
            self.where = f"ONNX Runtime CPU, simulating npu:{chip} ({part.precision})"

    def _described(self) -> str:
        """What executes, and which op types the provider took to the CPU against the plan."""
        if self.fell_back:
            return f"ONNX Runtime CPU: {PROVIDER} took nothing of the part"
        ops = [f"{line.op} ({line.why})" for line in self.placement if line.surprise]
        text = f"NPU through {PROVIDER}"
        return f"{text}; planned NPU, ran on CPU: {', '.join(ops)}" if ops else text

    def _open_device(
        self, part: PartRecord, bundle: Path, options: Mapping[str, str]
    ) -> PartSessions:
        plan = read_session(bundle_file(part, bundle, "session"))
        name = min(n for n in part.files if n.startswith("device"))
        model = bundle_file(part, bundle, name)
        strict = options.get("no_cpu_fallback") == "true"
        config = dict(plan["session_config"])
        if strict:
            config["session.disable_cpu_ep_fallback"] = "1"
        for name, value in plan["environment"].items():
            os.environ[name] = _resolve(value)
        settings = {k: _resolve(v) for k, v in plan["provider_options"].items()}
        if "config_file" in settings and not Path(settings["config_file"]).is_absolute():
            settings["config_file"] = str(model.parent / settings["config_file"])
        secret = encryption(part.options.get("release", ""), options.get("encryption_key", ""))
        started = time.time()
        opened: list[dict[str, str]] = []
        providers = [PROVIDER] if strict else [PROVIDER, "CPUExecutionProvider"]

        def opener(path: Path) -> Session:
            placed = _placed(settings, part, path, options)
            opened.append(placed)
            own = [placed | secret] if strict else [placed | secret, {}]
            return open_session(
                path,
                providers,
                provider_options=own,
                threads=threads_of(options),
                config=config,
                where=part.name,
            )

        sessions = PartSessions(part, bundle, "device", opener)
        self.fell_back = PROVIDER not in sessions.providers
        report = find_report(opened[0], started)
        if report is not None:
            planned = {op: int(count) for op, count in plan["planned"].items()}
            self.placement = compare(planned, read_report(report))
        return sessions

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once; parts of rows once per row or bucket."""
        if self._sessions is None:
            raise UsageError("executor is not open")
        return self._sessions.run(feeds)

    def close(self) -> None:
        """Drop the session."""
        self._sessions = None


def _placed(
    settings: Mapping[str, str], part: PartRecord, model: Path, options: Mapping[str, str]
) -> dict[str, str]:
    """Settings of one model file of the part: cache folder by option, else beside the model; key by
    everything that shapes the compilation, so that files for different row counts never share one."""
    identity = cache_identity(
        file_sha256(model), settings, runtime().__version__, options.get("driver", "unknown")
    )
    placed = dict(settings)
    for name, value in (
        ("cache_dir", options.get("cache_dir") or str(model.parent / "cache")),
        ("cache_key", f"{part.name}-{identity}"),
    ):
        old = {"cache_dir": "cacheDir", "cache_key": "cacheKey"}[name]
        placed[old if old in settings else name] = value
    return placed


def _resolve(text: str) -> str:
    """Put the installation folder in place. No other variable is expanded."""
    if INSTALL not in text:
        return text
    folder = os.environ.get(_INSTALL_VARIABLE, "")
    if not folder:
        raise ToolMissing(
            f"{_INSTALL_VARIABLE} is not set", fix="set it to the folder of the Ryzen AI software"
        )
    return text.replace(INSTALL, folder)


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_ENVIRONMENT = frozenset({"XLNX_VART_FIRMWARE", "XLNX_TARGET_NAME", "XLNX_ONNX_EP_REPORT_FILE"})


def read_session(path: Path) -> dict[str, dict[str, str]]:
    """Read a part's ``session.json``. Only known environment variables are accepted."""
    try:
        data: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError("cannot read session options", where=path.name) from error
    if not isinstance(data, dict):
        raise FormatError("session options are not a JSON object", where=path.name)
    found: dict[str, dict[str, str]] = {}
    for key in ("provider_options", "environment", "session_config", "planned"):
        table: object = data.get(key, {})  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if not isinstance(table, dict):
            raise FormatError(f"{key} is not an object", where=path.name)
        found[key] = {}
        for name, value in table.items():  # pyright: ignore[reportUnknownVariableType]
            if not isinstance(name, str) or not isinstance(value, str) or not _NAME.match(name):
                raise FormatError(f"{key} is not text to text", where=path.name)
            found[key][name] = value
    if not all(count.isdigit() for count in found["planned"].values()):
        raise FormatError("planned nodes are not counted in numbers", where=path.name)
    strange = sorted(set(found["environment"]) - _ENVIRONMENT)
    if strange:
        raise FormatError(
            "session options set an environment variable that is none of the provider's",
            where=f"{path.name}: {', '.join(strange)}",
        )
    return found
