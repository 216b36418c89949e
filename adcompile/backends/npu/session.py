"""Session options of the VitisAI execution provider, per chip and Ryzen AI release.

Pure data and one function; knows neither the IR nor ONNX Runtime. Paths below the installation are
written with ``${RYZEN_AI_INSTALLATION_PATH}``, other files relative to the part's folder; both are
resolved when a session is opened (``resolve.py``, and ``native/provider_session.cpp``).
Source: the release notes and option tables of Ryzen AI 1.1 to 1.8.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from adcompile.errors import FormatError, UsageError
from adcompile.manifest import check_bundle_path

INSTALL_VARIABLE = "RYZEN_AI_INSTALLATION_PATH"
INSTALL = f"${{{INSTALL_VARIABLE}}}"
ENCRYPTION = ("encryptionKey", "encryption_key")  # how releases spell the option
PROVIDER = "VitisAIExecutionProvider"
REPORT = "vitisai_ep_report.json"
REPORT_VARIABLE = "XLNX_ONNX_EP_REPORT_FILE"
_XCLBINS = f"{INSTALL}/voe-4.0-win_amd64/xclbins"


@dataclass(frozen=True, slots=True)
class Release:
    """What one Ryzen AI release takes. ``keys`` maps our option names to that release's spelling."""

    version: str
    keys: Mapping[str, str]
    targets: bool = False  # takes target X1/X2
    environment: bool = False  # firmware chosen by environment variables
    config_file: str = "never"  # never, bf16, always
    report_variable: bool = False  # the placement report must be asked for
    cache_in_memory: bool = False  # INT8 cache stays in memory unless told otherwise
    context: bool = False  # EP context files
    chips: tuple[str, ...] = ("phx", "hpt", "stx", "krk")
    precisions: tuple[str, ...] = ("xint8", "a8w8", "a16w8", "bf16", "fp32")


_OLD_KEYS = {"config_file": "config_file", "cache_dir": "cacheDir", "cache_key": "cacheKey"}
_NEW_KEYS = {"config_file": "config_file", "cache_dir": "cache_dir", "cache_key": "cache_key"}
_INTEGER = ("xint8", "a8w8", "a16w8", "bf16", "fp32")

RELEASES: dict[str, Release] = {
    r.version: r
    for r in (
        Release(
            "1.2",
            _OLD_KEYS,
            environment=True,
            config_file="always",
            chips=("phx", "hpt", "stx"),
            precisions=("xint8", "a8w8", "a16w8", "fp32"),
        ),
        Release(
            "1.3",
            {**_OLD_KEYS, "encryption_key": "encryptionKey"},
            environment=True,
            config_file="always",
            chips=("phx", "hpt", "stx"),
            precisions=_INTEGER,
        ),
        Release(
            "1.4",
            {**_NEW_KEYS, "xclbin": "xclbin", "encryption_key": "encryptionKey"},
            config_file="bf16",
            context=True,
        ),
        Release(
            "1.5",
            {
                **_NEW_KEYS,
                "xclbin": "xclbin",
                "encryption_key": "encryptionKey",
                "memory": "enable_cache_file_io_in_mem",
            },
            config_file="bf16",
            report_variable=True,
            cache_in_memory=True,
            context=True,
        ),
        *(
            Release(
                version,
                {
                    **_NEW_KEYS,
                    "xclbin": "xclbin",
                    "encryption_key": "encryptionKey" if version != "1.8" else "encryption_key",
                    "memory": "enable_cache_file_io_in_mem",
                    "target": "target",
                    **({"opt_level": "opt_level"} if version == "1.8" else {}),
                },
                targets=True,
                config_file="bf16",
                report_variable=True,
                cache_in_memory=True,
                context=True,
            )
            for version in ("1.6", "1.7", "1.8")
        ),
    )
}

OPT_LEVELS = ("0", "1", "2", "3", "65536")


@dataclass(frozen=True, slots=True)
class Chip:
    """One NPU generation. ``folder``/``overlay`` name its firmware."""

    name: str
    xdna2: bool
    xclbin: str
    target_name: str  # XLNX_TARGET_NAME of old releases


CHIPS: dict[str, Chip] = {
    c.name: c
    for c in (
        Chip("phx", False, f"{_XCLBINS}/phoenix/4x4.xclbin", "AMD_AIE2_4x4_Overlay"),
        Chip("hpt", False, f"{_XCLBINS}/phoenix/4x4.xclbin", "AMD_AIE2_4x4_Overlay"),
        Chip(
            "stx", True, f"{_XCLBINS}/strix/AMD_AIE2P_4x4_Overlay.xclbin", "AMD_AIE2P_4x4_Overlay"
        ),
        Chip(
            "krk", True, f"{_XCLBINS}/strix/AMD_AIE2P_4x4_Overlay.xclbin", "AMD_AIE2P_4x4_Overlay"
        ),
    )
}


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """Everything a session needs besides the model. ``planned``: nodes of every op type that are to
    run on the NPU, to be set beside the provider's report. ``notes`` explain choices to a person.
    ``encryption_option`` is the release's name of the option that takes a key, "" when it has none."""

    provider: str
    provider_options: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict[str, str])
    session_config: dict[str, str] = field(default_factory=dict[str, str])
    planned: dict[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()
    encryption_option: str = ""

    def as_json(self) -> str:
        """The file ``session.json`` of a part."""
        data = {
            "provider": self.provider,
            "provider_options": self.provider_options,
            "environment": self.environment,
            "session_config": self.session_config,
            "encryption_option": self.encryption_option,
            "planned": {op: str(count) for op, count in self.planned.items()},
            "notes": list(self.notes),
        }
        return json.dumps(data, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user may ask for. An empty text means the documented default."""

    target: str = ""  # X1 or X2
    xclbin: str = ""
    opt_level: str = ""
    cpu_fallback: bool = True
    ep_context: bool = False


def plan_session(
    chip: str, release: str, precision: str, cache_key: str, wishes: Wishes | None = None
) -> SessionPlan:
    """Options for one part. Raises UsageError when chip, release and wishes contradict."""
    asked = wishes or Wishes()
    known, version = _checked(chip, release, precision)
    _check_xclbin(asked.xclbin)
    options = {
        version.keys["cache_dir"]: "cache",
        version.keys["cache_key"]: cache_key,
    }
    notes: list[str] = []
    environment: dict[str, str] = {}
    if version.config_file == "always":
        options["config_file"] = f"{INSTALL}/voe-4.0-win_amd64/vaip_config.json"
        notes.append("vaip_config.json comes with the installer and is used as it is")
    elif precision in ("bf16", "fp32") and not known.xdna2:
        notes.append(f"{chip} has no float format: this part runs on the CPU")
    elif precision in ("bf16", "fp32") and version.config_file == "bf16":
        options["config_file"] = "vaiml_config.json"
        notes.append("the float model is converted to bf16 by the compiler")
    integer = precision not in ("bf16", "fp32")
    if version.environment and integer:
        environment["XLNX_VART_FIRMWARE"] = asked.xclbin or known.xclbin
        environment["XLNX_TARGET_NAME"] = known.target_name
    elif version.targets:
        _choose_target(options, notes, known, asked, release, integer)
    elif integer:
        options["xclbin"] = asked.xclbin or known.xclbin
    if version.report_variable:
        environment[REPORT_VARIABLE] = REPORT
    if version.cache_in_memory and integer:
        options[version.keys["memory"]] = "0"
        notes.append("the compiled model is kept on disk, so that later starts are quick")
    _add_wishes(options, version, asked)
    config = {} if asked.cpu_fallback else {"session.disable_cpu_ep_fallback": "1"}
    if asked.ep_context:
        if not version.context:
            raise UsageError(f"Ryzen AI {release} writes no EP context", fix="needs 1.4 or newer")
        config |= {"ep.context_enable": "1", "ep.context_embed_mode": "1"}
        notes.append("the compiled model is written beside the ONNX file as *_ctx.onnx")
    secret = version.keys.get("encryption_key", "")
    return SessionPlan(PROVIDER, options, environment, config, {}, tuple(notes), secret)


def _checked(chip: str, release: str, precision: str) -> tuple[Chip, Release]:
    if chip not in CHIPS:
        raise UsageError(f"unknown NPU {chip!r}", fix=f"known: {', '.join(CHIPS)}")
    if release not in RELEASES:
        raise UsageError(
            f"unknown Ryzen AI release {release!r}", fix=f"known: {', '.join(RELEASES)}"
        )
    known, version = CHIPS[chip], RELEASES[release]
    if chip not in version.chips:
        raise UsageError(
            f"Ryzen AI {release} does not know {chip}", fix=f"it has {', '.join(version.chips)}"
        )
    if precision == "bf16" and not known.xdna2:
        raise UsageError(f"{chip} has no bf16", fix="choose xint8, a8w8 or a16w8")
    if precision not in version.precisions:
        raise UsageError(
            f"Ryzen AI {release} has no {precision}",
            fix=f"choose from {', '.join(version.precisions)}, or a newer release",
        )
    return known, version


def _check_xclbin(name: str) -> None:
    """A bundle names files of its own, or of the installation; what else there is on a machine can
    be given when the bundle is run."""
    try:
        if name:
            check_bundle_path(name.removeprefix(f"{INSTALL}/"))
    except FormatError as error:
        raise UsageError(
            "a bundle cannot name this firmware file",
            where=name,
            fix=f"a path below {INSTALL}/, or below the part's folder; any other path: "
            "--device-option xclbin=PATH when it is run",
        ) from error


def _choose_target(
    options: dict[str, str],
    notes: list[str],
    chip: Chip,
    asked: Wishes,
    release: str,
    integer: bool,
) -> None:
    """From 1.6 on: X2 is the new integer compiler (XDNA 2 only), X1 the legacy one."""
    if asked.target not in ("", "X1", "X2"):
        raise UsageError(f"no such compiler target {asked.target!r}", fix="X1 or X2")
    if not integer:
        return
    if not chip.xdna2:
        if asked.target == "X2":
            raise UsageError(f"{chip.name} has no X2 compiler", fix="leave target out, or use X1")
        options["target"] = "X1"
        options["xclbin"] = asked.xclbin or chip.xclbin
        notes.append("Phoenix and Hawk Point: the xclbin selects the chip, X1 alone does not")
        return
    if asked.xclbin:
        raise UsageError(
            f"{chip.name} must not name an xclbin from release 1.6 on",
            where=f"Ryzen AI {release}",
            fix="leave it out",
        )
    options["target"] = asked.target or "X2"


def _add_wishes(options: dict[str, str], version: Release, asked: Wishes) -> None:
    if asked.opt_level:
        if "opt_level" not in version.keys:
            raise UsageError(f"Ryzen AI {version.version} has no opt_level", fix="needs 1.8")
        if asked.opt_level not in OPT_LEVELS:
            raise UsageError(
                f"no such opt_level {asked.opt_level!r}", fix=f"one of {', '.join(OPT_LEVELS)}"
            )
        options["opt_level"] = asked.opt_level


def check_key(key: str) -> str:
    """*key* itself. Raises UsageError when it cannot encrypt a cached model."""
    if len(key) != 64 or any(c not in "0123456789abcdefABCDEF" for c in key):
        raise UsageError("an encryption key is 64 hexadecimal digits")
    return key


def cache_identity(
    model_sha256: str, options: Mapping[str, str], provider_version: str, driver_version: str
) -> str:
    """The cache key of a compiled model: 32 hexadecimal digits of everything that shapes it.

    A changed model, option, execution provider or driver gives another key, so a stale cache is
    never met. The place of the cache itself does not count.
    """
    counted = {k: v for k, v in options.items() if not k.lower().startswith("cache")}
    lines = [f"model {model_sha256}", f"provider {provider_version}", f"driver {driver_version}"]
    lines += [f"{name}={value}" for name, value in sorted(counted.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
