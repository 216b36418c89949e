"""What is settled when a session is opened: the installation, files, the cache.

``session.json`` holds all that is known when the bundle is built. Left open is what depends on the
machine: where Ryzen AI is installed, where the bundle lies, versions, and what the caller asks for.
``native/provider_session.cpp`` does the same for the generated program, to the same cache key, so
that both share a compiled model; a test holds one against the other.

A file is named relative to the part's folder, or below ``${RYZEN_AI_INSTALLATION_PATH}/``; every
other value is one plain word. So a bundle names no other file of the machine. The caller may.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adcompile.backends.npu.session import (
    ENCRYPTION,
    INSTALL,
    INSTALL_VARIABLE,
    REPORT_VARIABLE,
    SessionPlan,
    cache_identity,
    check_key,
)
from adcompile.errors import FormatError, ToolMissing, UsageError
from adcompile.manifest import check_bundle_path, file_sha256

NO_FALLBACK = "session.disable_cpu_ep_fallback"
_FIRMWARE = "XLNX_VART_FIRMWARE"  # the xclbin of old releases
_ENVIRONMENT = frozenset({_FIRMWARE, "XLNX_TARGET_NAME", REPORT_VARIABLE})
_FILES = frozenset({"config_file", "xclbin", _FIRMWARE})
_CACHE_DIR = ("cache_dir", "cacheDir")
_CACHE_KEY = ("cache_key", "cacheKey")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_PLAIN = re.compile(r"[A-Za-z0-9_.+-]*\Z")


@dataclass(frozen=True, slots=True)
class Settled:
    """A session's settings on this machine. ``identity`` are those that shape what is compiled, the
    files by their SHA-256; the cache key is made of them for each model."""

    options: dict[str, str]
    environment: dict[str, str]
    config: dict[str, str]
    identity: dict[str, str]
    part: str

    def for_model(self, model: Path, provider: str, driver: str) -> dict[str, str]:
        """Provider options for one model file of the part: with its own cache key, so that files for
        different row counts never share one. *provider* and *driver* are versions."""
        key = cache_identity(file_sha256(model), self.identity, provider, driver)
        name = next((n for n in _CACHE_KEY if n in self.options), _CACHE_KEY[0])
        return {**self.options, name: f"{self.part}-{key}"}


def settle(plan: SessionPlan, part: str, folder: Path, asked: Mapping[str, str]) -> Settled:
    """Settle what *plan* leaves open for the part in *folder*.

    *asked*, by the caller: ``xclbin``, ``config_file`` and ``cache_dir`` (paths of any kind),
    ``encryption_key`` and ``no_cpu_fallback``. Raises ToolMissing, naming the variable or the file,
    when the installation lacks something; FormatError when the bundle does or when a path leads out
    of it; UsageError when *asked* does not fit the session.
    """
    options, identity = _files(plan.provider_options, folder, asked)
    environment, more = _files(plan.environment, folder, asked)
    named = {"xclbin" if n == _FIRMWARE else n for n in {*options, *environment}}
    for name in ("xclbin", "config_file"):
        if asked.get(name) and name not in named:
            raise UsageError(f"the session of part {part!r} takes no {name}", fix="leave it out")
    place = next((n for n in _CACHE_DIR if n in options), _CACHE_DIR[0])
    options[place] = asked.get("cache_dir") or str(folder / (options.get(place) or "cache"))
    secret = asked.get("encryption_key", "")
    if secret:
        if not plan.encryption_option:
            raise UsageError(f"the release of part {part!r} has no encryption")
        options[plan.encryption_option] = check_key(secret)
    config = dict(plan.session_config)
    if asked.get("no_cpu_fallback") == "true":
        config[NO_FALLBACK] = "1"
    more.pop(REPORT_VARIABLE, None)  # shapes nothing that is compiled
    return Settled(options, environment, config, {**identity, **more}, part)


def _files(
    table: Mapping[str, str], folder: Path, asked: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """*table* with real paths; and with digests instead of paths."""
    settled, identity = dict(table), dict(table)
    for name in sorted(_FILES & set(table)):
        own = asked.get("xclbin" if name == _FIRMWARE else name)
        path = Path(own) if own else _inside(name, table[name], folder)
        if own and not path.is_file():
            raise UsageError(f"no such file for {name}", where=own)
        settled[name], identity[name] = str(path), file_sha256(path)
    return settled, identity


def _inside(name: str, value: str, folder: Path) -> Path:
    """A file of the part, or of the installation."""
    below = value.startswith(f"{INSTALL}/")
    try:
        check_bundle_path(value.removeprefix(f"{INSTALL}/"))
    except FormatError as error:
        raise FormatError(
            "session option leads out of the bundle", where=f"{name}={value}"
        ) from error
    base = _installation() if below else folder
    path = base / value.removeprefix(f"{INSTALL}/")
    if not path.is_file():
        kind = ToolMissing if below else FormatError
        raise kind(
            f"the file that {name} names is missing",
            where=str(path),
            fix=f"look whether {INSTALL_VARIABLE} names the right release, or give {name}"
            if below
            else f"build the bundle again, or give {name}",
        )
    if not path.resolve().is_relative_to(base.resolve()):
        raise FormatError("session option leads out of the bundle", where=f"{name}={value}")
    return path


def _installation() -> Path:
    folder = os.environ.get(INSTALL_VARIABLE, "")
    if not folder:
        raise ToolMissing(
            f"{INSTALL_VARIABLE} is not set", fix="set it to the folder of the Ryzen AI software"
        )
    if not Path(folder).is_dir():
        raise ToolMissing(f"{INSTALL_VARIABLE} names no folder", where=folder)
    return Path(folder)


def read_session(path: Path) -> SessionPlan:
    """Read a part's ``session.json``. Only known environment variables and plain values are accepted;
    raises FormatError."""
    try:
        data: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError("cannot read session options", where=path.name) from error
    if not isinstance(data, dict):
        raise FormatError("session options are not a JSON object", where=path.name)
    fields: dict[str, object] = {str(k): v for k, v in data.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    options, environment, config, planned = (
        _table(fields, key, path.name)
        for key in ("provider_options", "environment", "session_config", "planned")
    )
    provider, encryption = fields.get("provider", ""), fields.get("encryption_option", "")
    if not isinstance(provider, str) or not _NAME.match(provider):
        raise FormatError("session options name no provider", where=path.name)
    if not isinstance(encryption, str) or encryption not in ("", *ENCRYPTION):
        raise FormatError("encryption_option is none of the provider's", where=path.name)
    if not all(count.isdigit() for count in planned.values()):
        raise FormatError("planned nodes are not counted in numbers", where=path.name)
    strange = sorted(set(environment) - _ENVIRONMENT)
    if strange:
        raise FormatError(
            "session options set an environment variable that is none of the provider's",
            where=f"{path.name}: {', '.join(strange)}",
        )
    counts = {op: int(count) for op, count in planned.items()}
    return SessionPlan(provider, options, environment, config, counts, (), encryption)


def _table(fields: Mapping[str, object], key: str, where: str) -> dict[str, str]:
    """One table of the file: names to plain words (paths are judged when they are resolved)."""
    table = fields.get(key, {})
    if not isinstance(table, dict):
        raise FormatError(f"{key} is not an object", where=where)
    found: dict[str, str] = {}
    for name, value in table.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str) or not isinstance(value, str) or not _NAME.match(name):
            raise FormatError(f"{key} is not text to text", where=where)
        if name not in _FILES and not _PLAIN.match(value):
            raise FormatError(f"{key}.{name} is no plain word", where=where)
        found[name] = value
    return found
