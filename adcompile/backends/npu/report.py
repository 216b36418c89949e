"""The execution provider's own placement report, ``vitisai_ep_report.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adcompile.errors import FormatError

MAX_REPORT_BYTES = 256 << 20
_NPU_LABELS = ("NPU", "DPU")  # DPU up to Ryzen AI 1.4


class _Device(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str
    nodeNum: int = Field(ge=0)
    supportedOpType: list[str] = []


class _Node(BaseModel):
    model_config = ConfigDict(extra="ignore")
    opType: str = ""
    device: str = ""
    input: list[str] = []
    output: list[str] = []


class _Report(BaseModel):
    model_config = ConfigDict(extra="ignore")
    deviceStat: list[_Device]
    nodeStat: list[_Node] = []


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the provider put the nodes. ``ops`` are names without domain; ``on_cpu`` output names."""

    total: int
    npu: int
    cpu: int
    npu_ops: tuple[str, ...]
    cpu_ops: tuple[str, ...]
    on_cpu: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True when everything ran on the NPU, the format conversions at its edge aside."""
        return not set(self.cpu_ops) - {"QuantizeLinear", "DequantizeLinear"}


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
    on_cpu = [n.output[0] for n in report.nodeStat if n.device.upper() == "CPU" and n.output]
    return Placement(
        total=total,
        npu=npu.nodeNum if npu else 0,
        cpu=cpu.nodeNum if cpu else 0,
        npu_ops=_plain(npu),
        cpu_ops=_plain(cpu),
        on_cpu=tuple(on_cpu),
    )


def _plain(device: _Device | None) -> tuple[str, ...]:
    return tuple(op.rpartition("::")[2] for op in device.supportedOpType) if device else ()


@dataclass(frozen=True, slots=True)
class Surprise:
    """An op type that the plan put on the NPU and the provider did not."""

    op: str
    why: str


def compare(planned: dict[str, int], found: Placement) -> list[Surprise]:
    """Set the plan (op type to number of nodes) beside the provider's report."""
    surprises: list[Surprise] = []
    for op in sorted(planned):
        if op in found.cpu_ops and op not in found.npu_ops:
            why = "planned NPU, ran on CPU"
        elif op in found.cpu_ops:
            why = "planned NPU, partly ran on CPU"
        elif op not in found.npu_ops:
            why = "planned NPU, not in the report (fused or folded)"
        else:
            continue
        surprises.append(Surprise(op, why))
    return surprises
