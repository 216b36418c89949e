"""The execution provider's own placement report, ``vitisai_ep_report.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adcompile.backends.npu.session import REPORT
from adcompile.errors import FormatError
from adcompile.runtime.executor import ReportLine

MAX_REPORT_BYTES = 256 << 20
_NPU_LABELS = ("NPU", "DPU")  # DPU up to Ryzen AI 1.4


class _Device(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str
    nodeNum: int = Field(ge=0)
    supportedOpType: list[str] = []


class _Report(BaseModel):
    model_config = ConfigDict(extra="ignore")
    deviceStat: list[_Device]


@dataclass(frozen=True, slots=True)
class Placement:
    """How many nodes the provider put where, and their op types, without domain."""

    total: int
    npu: int
    cpu: int
    npu_ops: tuple[str, ...]
    cpu_ops: tuple[str, ...]


def read_report(path: Path) -> Placement:
    """Parse a report of any release. Raises FormatError."""
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise FormatError("report too large", where=str(path))
        text = path.read_text(encoding="utf-8")
        report = _Report.model_validate(json.loads(text))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError("cannot read the report", where=str(path), why=str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(x) for x in first["loc"])
        raise FormatError(
            "not a placement report", where=f"{path}: {field}", why=first["msg"]
        ) from error
    stats = {device.name.upper(): device for device in report.deviceStat}
    npu = next((stats[label] for label in _NPU_LABELS if label in stats), None)
    cpu = stats.get("CPU")
    total = stats["ALL"].nodeNum if "ALL" in stats else sum(d.nodeNum for d in report.deviceStat)
    return Placement(
        total=total,
        npu=npu.nodeNum if npu else 0,
        cpu=cpu.nodeNum if cpu else 0,
        npu_ops=_plain(npu),
        cpu_ops=_plain(cpu),
    )


def _plain(device: _Device | None) -> tuple[str, ...]:
    return tuple(op.rpartition("::")[2] for op in device.supportedOpType) if device else ()


# what is known about ops that the provider takes back (facts of its releases, not of this run)
_KNOWN = {
    "Resize": "linear Resize in XINT8 is moved to the CPU by some releases",
    "ConvTranspose": "not in the XINT8 table of Ryzen AI 1.8",
    "Sigmoid": "not in the XINT8 table of Ryzen AI 1.8",
    "HardSigmoid": "not in the XINT8 table of Ryzen AI 1.8",
}
_FEW = "subgraphs with fewer than two convolutions stay on the CPU"


def compare(planned: Mapping[str, int], found: Placement) -> list[ReportLine]:
    """Set the plan (op type to number of nodes) beside the provider's report, op by op."""
    lines: list[ReportLine] = []
    for op, count in sorted(planned.items()):
        if op in found.cpu_ops and op not in found.npu_ops:
            few = _FEW if planned.get("Conv", 0) < 2 else ""
            why = _KNOWN.get(op) or few or "the provider does not say"
            lines.append(ReportLine(op, count, "CPU", why))
        elif op in found.cpu_ops:
            lines.append(
                ReportLine(op, count, "NPU and CPU", _KNOWN.get(op, "the provider does not say"))
            )
        elif op in found.npu_ops:
            lines.append(ReportLine(op, count, "NPU"))
        else:
            lines.append(ReportLine(op, count, "not in the report", "fused or folded"))
    return lines


def moved_to_cpu(lines: Sequence[ReportLine]) -> str:
    """The op types that ran on the CPU against the plan, in words; "" when there are none."""
    ops = ", ".join(f"{line.op} ({line.why})" for line in lines if line.surprise)
    return f"planned NPU, ran on CPU: {ops}" if ops else ""


def find_report(settings: Mapping[str, str], since: float) -> Path | None:
    """The report of a session that was opened at time *since*, where the releases put it.

    In the model's own cache folder any report counts; elsewhere only one written since then, so that
    the report of another model is never taken for this one's.
    """
    cache = Path(settings.get("cache_dir") or settings.get("cacheDir") or "")
    key = settings.get("cache_key") or settings.get("cacheKey") or ""
    own = cache / key / REPORT
    if key and own.is_file():
        return own
    for path in (cache / REPORT, Path(REPORT)):
        if path.is_file() and path.stat().st_mtime >= since:
            return path
    return None
