"""Runs an NPU part: on the VitisAI execution provider where it is, else simulated on the CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from adcompile.backends.npu.report import compare, find_report, moved_to_cpu, read_report
from adcompile.backends.npu.resolve import NO_FALLBACK, read_session, settle
from adcompile.backends.npu.session import PROVIDER
from adcompile.backends.simulation import (
    PartSessions,
    bundle_file,
    simulate,
    threads_of,
)
from adcompile.errors import FormatError, ToolMissing, Unsupported, UsageError
from adcompile.manifest import PartRecord
from adcompile.runtime.executor import Array, ReportLine
from adcompile.runtime.session import Session, available_providers, open_session, runtime

_MODES = ("auto", "npu", "cpu")
_OPTIONS = (
    *("device", "require_device", "no_cpu_fallback", "as_planned", "threads"),
    *("cache_dir", "driver", "encryption_key", "xclbin", "config_file"),
    *("target", "simulate"),  # of every executor
)


class NpuExecutor:
    """Options: ``device`` (auto, npu, cpu), ``require_device``, ``no_cpu_fallback``, ``cache_dir``,
    ``driver`` (its version, part of the cache identity), ``encryption_key`` (of the cached model; kept
    nowhere), ``xclbin`` and ``config_file`` (instead of the session's own), ``threads``,
    ``as_planned`` (an error unless the provider reports that all ran where it was planned)."""

    family: ClassVar[str] = "npu"

    def __init__(self) -> None:
        self.simulated = True
        self.where = "not opened"
        self.fell_back = False
        self.placement: list[ReportLine] = []
        self._counted = ""
        self._sessions: PartSessions | None = None

    def open(self, part: PartRecord, bundle: Path, options: Mapping[str, str]) -> None:
        """Open the part. Raises ToolMissing when the NPU is required and its provider is absent,
        Unsupported when the provider did not keep to the plan and ``as_planned`` asks for it."""
        for name in options:
            if name not in _OPTIONS:
                known = ", ".join(_OPTIONS)
                raise UsageError(f"an npu part has no option {name!r}", fix=f"known: {known}")
        mode = options.get("device", "auto")
        if mode not in _MODES:
            raise UsageError(f"unknown device {mode!r}", fix=f"one of {', '.join(_MODES)}")
        present = PROVIDER in available_providers()
        strict = options.get("no_cpu_fallback") == "true"
        insist = options.get("as_planned") == "true"
        required = options.get("require_device") == "true" or mode == "npu" or strict or insist
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
        moved = moved_to_cpu(self.placement)
        return f"NPU through {PROVIDER}{self._counted}" + (f"; {moved}" if moved else "")

    def _open_device(
        self, part: PartRecord, bundle: Path, options: Mapping[str, str]
    ) -> PartSessions:
        session = bundle_file(part, bundle, "session")
        plan = read_session(session)
        settled = settle(plan, part.name, session.parent, options)
        strict = settled.config.get(NO_FALLBACK) == "1"
        os.environ.update(settled.environment)
        version, driver = runtime().__version__, options.get("driver", "unknown")
        providers = [PROVIDER] if strict else [PROVIDER, "CPUExecutionProvider"]

        def opener(path: Path) -> Session:
            own = settled.for_model(path, version, driver)
            started = time.time()
            session = open_session(
                path,
                providers,
                provider_options=[own] if strict else [own, {}],
                threads=threads_of(options),
                config=settled.config,
                where=part.name,
            )
            self.fell_back = PROVIDER not in session.providers
            why = self._departures(find_report(own, started), plan.planned)
            if why and options.get("as_planned") == "true":
                raise Unsupported(
                    "the part does not run as planned", where=f"part {part.name!r}", why=why
                )
            return session

        return PartSessions(part, bundle, "device", opener)

    def _departures(self, report: Path | None, planned: Mapping[str, int]) -> str:
        """Keep the provider's report beside the plan, and say what speaks against the plan, "" when
        nothing does."""
        if self.fell_back:
            return f"{PROVIDER} took nothing of the part"
        if report is None:
            return f"{PROVIDER} left no report of where the operators ran"
        try:
            found = read_report(report)
        except FormatError as error:
            return f"{error.what}: {error.why or error.where}"
        self._counted = f": {found.npu} of {found.total} operators"
        self.placement = compare(planned, found)
        return moved_to_cpu(self.placement)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once; parts of rows once per row or bucket."""
        if self._sessions is None:
            raise UsageError("executor is not open")
        return self._sessions.run(feeds)

    def close(self) -> None:
        """Drop the session."""
        self._sessions = None
