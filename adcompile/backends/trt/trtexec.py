"""The trtexec command that builds a part on the target, for its TensorRT version.

An option that a version does not know makes trtexec stop, so every option has the versions that
take it. Source: the option parser of the trtexec sample on each release branch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adcompile.errors import UsageError

Version = tuple[int, int]

# option -> (first version that has it, first version that lacks it again)
_GATES: dict[str, tuple[Version, Version]] = {
    "--buildOnly": ((0, 0), (10, 0)),
    "--skipInference": ((8, 6), (99, 0)),
    "--explicitBatch": ((0, 0), (10, 0)),
    "--memPoolSize": ((8, 4), (99, 0)),
    "--workspace": ((0, 0), (10, 0)),
    "--fp16": ((0, 0), (11, 0)),
    "--int8": ((0, 0), (11, 0)),
    "--stronglyTyped": ((9, 0), (99, 0)),
    "--timingCacheFile": ((8, 0), (99, 0)),
    "--builderOptimizationLevel": ((8, 6), (99, 0)),
    "--plugins": ((0, 0), (8, 6)),
    "--staticPlugins": ((8, 6), (99, 0)),
    "--useDLACore": ((0, 0), (99, 0)),
    "--allowGPUFallback": ((0, 0), (99, 0)),
    "--exportLayerInfo": ((8, 4), (99, 0)),
    "--profilingVerbosity": ((8, 4), (99, 0)),
}
_DLA_UNTIL = (10, 8)


def has_option(option: str, version: Version) -> bool:
    """True when that version's trtexec knows *option*."""
    first, last = _GATES[option]
    return first <= version < last


def parse_version(text: str) -> Version:
    """``"TensorRT 10.3"`` or ``"10.3"`` to (10, 3). Raises UsageError."""
    numbers = text.rpartition(" ")[2].removeprefix("rtx-").split(".")
    if len(numbers) < 2 or not all(n.isdigit() for n in numbers[:2]):
        raise UsageError(f"not a TensorRT version: {text!r}", fix="write it like 10.3")
    return int(numbers[0]), int(numbers[1])


def build_options(
    version: Version,
    precision: str,
    *,
    profile: Mapping[str, Sequence[Sequence[int]]],
    dla_core: int | None = None,
    plugins: str = "",
    workspace_mib: int,
    opt_level: int | None = None,
) -> list[str]:
    """Options after ``trtexec --onnx=… --saveEngine=…``, each known to *version*."""
    options = ["--skipInference" if has_option("--skipInference", version) else "--buildOnly"]
    if has_option("--explicitBatch", version) and version < (8, 5):
        options.append("--explicitBatch")
    if has_option("--memPoolSize", version):
        options.append(f"--memPoolSize=workspace:{workspace_mib}")
    else:
        options.append(f"--workspace={workspace_mib}")
    options += _precision_options(version, precision)
    if opt_level is not None:
        options.append(f"--builderOptimizationLevel={opt_level}")
    if plugins:
        flag = next(f for f in ("--staticPlugins", "--plugins") if has_option(f, version))
        options.append(f"{flag}={plugins}")
    if dla_core is not None:
        options += _dla_options(version, precision, profile, dla_core)
    for index, flag in enumerate(("--minShapes", "--optShapes", "--maxShapes")):
        shapes = [f"{name}:{'x'.join(map(str, dims[index]))}" for name, dims in profile.items()]
        if shapes:
            options.append(f"{flag}={','.join(shapes)}")
    if has_option("--exportLayerInfo", version):
        options.append("--exportLayerInfo=layers.json")
        options.append("--profilingVerbosity=detailed")
    return options


def _precision_options(version: Version, precision: str) -> list[str]:
    """A typed graph where the version can be told so; flags for the weakly typed builders."""
    if precision == "fp32":
        return []
    if precision == "fp16":
        return _if_known(version, "--stronglyTyped") or ["--fp16"]
    # int8: Q/DQ nodes say where; fp16 is allowed for the rest where types are weak
    return [o for o in ("--int8", "--fp16") if has_option(o, version)]


def _if_known(version: Version, option: str) -> list[str]:
    return [option] if has_option(option, version) else []


def _dla_options(
    version: Version, precision: str, profile: Mapping[str, object], core: int
) -> list[str]:
    if version >= _DLA_UNTIL:
        raise UsageError(
            f"TensorRT {version[0]}.{version[1]} does not build for the DLA",
            why="support ended with 10.7",
            fix="leave out dla, or use JetPack 6 (TensorRT 10.3)",
        )
    if precision == "int8":
        raise UsageError("the DLA does not take explicit quantization", fix="use fp16 on the DLA")
    if precision == "fp32":
        raise UsageError("the DLA has no fp32", fix="use --precision fp16")
    if profile:
        raise UsageError(
            "the DLA takes fixed shapes only",
            where=", ".join(profile),
            why="a part of regions has any number of rows",
            fix="leave out dla_core, or pin the part to the host",
        )
    return ["--fp16", f"--useDLACore={core}", "--allowGPUFallback"]
