"""The options of this family: which there are, and what they say about a session."""

from __future__ import annotations

from collections.abc import Mapping

from adcompile.backend_options import PLACEMENT, QUANTIZATION, check_names, float_nodes
from adcompile.backends.npu.session import RELEASES, SessionPlan, Wishes, plan_session
from adcompile.errors import UsageError
from adcompile.interfaces import LowerContext

OPTIONS: Mapping[str, str] = {
    **QUANTIZATION,
    **PLACEMENT,
    "npu_target": "compiler of releases from 1.6 on: X1 or X2",
    "xclbin": "firmware file, where the release takes one",
    "opt_level": "of the compiler of release 1.8",
    "cpu_fallback": "false: the provider may put no node on the CPU",
    "ep_context": "true: the provider writes its compiled model as an EP context file",
}
"""Name to meaning, for ``-O NAME=VALUE`` or a part of plan.yaml."""


def check_options(ctx: LowerContext) -> None:
    """Refuse unknown options, and those that contradict the chip or the release, before any work.

    Raises UsageError.
    """
    check_names("npu", ctx.options, OPTIONS)
    plan = session_plan(ctx, "")
    if plan.session_config.get("session.disable_cpu_ep_fallback") == "1" and float_nodes(
        ctx.options
    ):
        raise UsageError(
            "nodes are left in float, and the CPU is not allowed to run them",
            where=", ".join(sorted(float_nodes(ctx.options))[:3]),
            fix="leave out cpu_fallback=false, or promote them to a higher precision instead",
        )


def session_plan(ctx: LowerContext, cache_key: str) -> SessionPlan:
    """Session options of a part. Raises UsageError when chip, release and wishes contradict."""
    wishes = Wishes(
        target=ctx.options.get("npu_target", ""),
        xclbin=ctx.options.get("xclbin", ""),
        opt_level=ctx.options.get("opt_level", ""),
        cpu_fallback=ctx.options.get("cpu_fallback", "true") != "false",
        ep_context=ctx.options.get("ep_context", "false") == "true",
    )
    return plan_session(chip_of(ctx), release_of(ctx), ctx.precision, cache_key, wishes)


def chip_of(ctx: LowerContext) -> str:
    """``stx`` of the target ``npu:stx@1.8``."""
    return ctx.target.name.partition(":")[2].partition("@")[0] or "stx"


def release_of(ctx: LowerContext) -> str:
    """The Ryzen AI release, as the tables know it; an unknown one is refused later."""
    found = ctx.target.toolchain.rpartition(" ")[2]
    return found or next(reversed(RELEASES))
