"""Sessions on an NPU: Python and the generated program open them with the same settings.

Both read the session.json that a build writes, for every chip, release and precision. The C++ side runs
on a fake of ONNX Runtime, which prints what it is given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adcompile.backends.npu.resolve import read_session, settle
from adcompile.backends.npu.session import (
    CHIPS,
    RELEASES,
    SessionPlan,
    Wishes,
    plan_session,
)
from adcompile.errors import AdcompileError, FormatError, UsageError
from tests.host.engines import Driver, run

VERSION = "1.17.3"  # the fake's
KEY = "0123456789abcdefABCDEF" + "0" * 42
FLAT = json.dumps({"inputs": {"x": [1, 1, 2, 3, 1]}, "outputs": {"y": [1, 1, 2, 3, 1]},
                   "grids": [[2, 2], [3, 4]]})  # fmt: skip
VARIABLES = ("XLNX_VART_FIRMWARE", "XLNX_TARGET_NAME", "XLNX_ONNX_EP_REPORT_FILE")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the vendor's installer brings, and no variable set by others."""
    place = tmp_path / "ryzen ai"
    files = [c.xclbin for c in CHIPS.values()] + ["${}/voe-4.0-win_amd64/vaip_config.json"]
    for number, name in enumerate(sorted({f.partition("/")[2] for f in files})):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"file {number}")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RYZEN_AI_INSTALLATION_PATH", str(place))
    return place


def write_session(bundle: Path, plan: SessionPlan | Mapping[str, object]) -> Path:
    """The part's folder, with the file that a build writes there."""
    folder = bundle / "parts" / "net"
    text = plan.as_json() if isinstance(plan, SessionPlan) else json.dumps(plan)
    (folder / "session.json").write_text(text)
    (folder / "vaiml_config.json").write_text("{}")
    return folder


@dataclass
class Opened:
    """What a session is opened with."""

    options: dict[str, str] = field(default_factory=dict[str, str])  # of the provider
    environment: dict[str, str] = field(default_factory=dict[str, str])
    config: dict[str, str] = field(default_factory=dict[str, str])


def in_cpp(driver: Driver, bundle: Path, asked: Mapping[str, str]) -> tuple[Opened, str]:
    """What the program gives to ONNX Runtime; or its error."""
    code, lines = run(driver.path, "onnxruntime", bundle, options=asked)
    if code != 0:
        return Opened(), next(x for x in lines if x.startswith("error: ")).removeprefix("error: ")
    start = lines.index(next(x for x in lines if x.startswith("CreateSession ")))
    before = lines[:start]  # everything is set before the session is made
    given = {
        name: [x.removeprefix(f"{name} ") for x in before if x.startswith(f"{name} ")]
        for name in ("AppendExecutionProvider", "environment", "AddSessionConfigEntry")
    }
    (provider,) = given["AppendExecutionProvider"]
    assert provider.startswith("VitisAI ")
    # paths hold spaces: an option begins where a known name does
    words = provider.removeprefix("VitisAI ").replace(" ", "\0").split("\0")
    options: dict[str, str] = {}
    last = ""
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            options[name], last = value, name
        else:
            options[last] += f" {word}"
    config = dict(entry.split("=", 1) for entry in given["AddSessionConfigEntry"])
    assert config.pop("session.force_spinning_stop") == "1"
    environment = dict(entry.split("=", 1) for entry in given["environment"])
    return Opened(options, environment, config), ""


def in_python(folder: Path, model: Path, asked: Mapping[str, str]) -> Opened:
    """The same from Python."""
    settled = settle(read_session(folder / "session.json"), "net", folder, asked)
    options = settled.for_model(model, VERSION, asked.get("driver", "unknown"))
    return Opened(options, settled.environment, settled.config)


def plans() -> dict[str, SessionPlan]:
    """Every chip, release and precision that go together, with every wish of a build."""
    found: dict[str, SessionPlan] = {}
    wishes = [Wishes(), Wishes(ep_context=True), Wishes(cpu_fallback=False), Wishes(opt_level="2")]
    for release, version in RELEASES.items():
        for chip in version.chips:
            for precision in version.precisions:
                for number, wish in enumerate(wishes):
                    try:
                        plan = plan_session(chip, release, precision, "net-key", wish)
                    except UsageError:
                        continue
                    found[f"{chip}@{release} {precision} {number}"] = plan
    return found


def distinct_plans() -> dict[str, SessionPlan]:
    """One of those that write the same file."""
    first: dict[str, str] = {}
    for name, plan in plans().items():
        first.setdefault(plan.as_json(), name)
    return {name: plans()[name] for name in first.values()}


def test_every_session_is_opened_alike(driver: Driver, bundle: Path, install: Path) -> None:
    """Options, variables, configuration, cache folder and key, for every file that a build can write."""
    cases = distinct_plans()
    assert len(cases) > 20
    for name, plan in cases.items():
        folder = write_session(bundle, plan)
        found, error = in_cpp(driver, bundle, {})
        assert found == in_python(folder, bundle / "net.onnx", {}), (name, error)
        assert "${" not in str(found), name
        options = found.options
        place = options.get("cache_dir") or options.get("cacheDir")
        assert place == f"{folder}/cache", name
        for option in ("config_file", "xclbin"):
            if option in options:
                assert Path(options[option]).is_file(), name


def test_what_the_caller_asks_for(
    driver: Driver, bundle: Path, install: Path, tmp_path: Path
) -> None:
    """Cache folder, firmware, key, driver, and an error instead of the CPU: the same on both sides."""
    firmware = tmp_path / "my.xclbin"
    firmware.write_text("firmware")
    asked = {
        "cache_dir": str(tmp_path / "my cache"),
        "xclbin": str(firmware),
        "encryption_key": KEY,
        "no_cpu_fallback": "true",
        "driver": "32.0.203",
    }
    spelled = {"1.3": "encryptionKey", "1.5": "encryptionKey", "1.8": "encryption_key"}
    for release, option in spelled.items():
        folder = write_session(bundle, plan_session("phx", release, "xint8", "net-key"))
        found, error = in_cpp(driver, bundle, asked)
        assert found == in_python(folder, bundle / "net.onnx", asked), error
        options, environment = found.options, found.environment
        assert options[option] == KEY
        assert (options.get("cache_dir") or options["cacheDir"]) == asked["cache_dir"]
        assert str(firmware) in (options.get("xclbin"), environment.get("XLNX_VART_FIRMWARE"))
        assert found.config == {"session.disable_cpu_ep_fallback": "1"}


def test_a_stale_cache_is_never_met(driver: Driver, bundle: Path, install: Path) -> None:
    """Another model, firmware, configuration, driver or option: another key. The same files elsewhere:
    the same key."""
    plan = plan_session("phx", "1.4", "xint8", "net-key")
    keys: list[str] = []

    def note(asked: Mapping[str, str], plan: SessionPlan = plan) -> None:
        folder = write_session(bundle, plan)
        found, _ = in_cpp(driver, bundle, asked)
        assert found == in_python(folder, bundle / "net.onnx", asked)
        keys.append(found.options["cache_key"])

    note({})
    note({"driver": "32.0"})
    note({}, plan_session("phx", "1.4", "fp32", "net-key"))
    (install / "voe-4.0-win_amd64/xclbins/phoenix/4x4.xclbin").write_text("newer firmware")
    note({})
    with (bundle / "net.onnx").open("a") as model:
        model.write("out more 1 -1 3\n")
    note({})
    assert len(set(keys)) == len(keys)
    note({"cache_dir": "/elsewhere"})
    assert keys[-1] == keys[-2]
    moved = bundle.rename(bundle.with_name("moved"))
    found, _ = in_cpp(driver, moved, {})
    assert found.options["cache_key"] == keys[-1]


OUT = "leads out of the bundle"
MISSING = "names is missing"
BELOW = "${RYZEN_AI_INSTALLATION_PATH}"
# table of session.json, an entry in it, what both sides say
REFUSED: list[tuple[str, object, str]] = [
    ("provider_options", {"xclbin": "../net.onnx"}, OUT),
    ("provider_options", {"xclbin": "/etc/hostname"}, OUT),
    ("provider_options", {"xclbin": f"{BELOW}/../x"}, OUT),
    (
        "provider_options",
        {"xclbin": f"{BELOW}/no.xclbin"},
        f"{BELOW[2:-1]} names the right release",
    ),
    ("provider_options", {"xclbin": "${HOME}/x"}, MISSING),
    ("provider_options", {"config_file": "no.json"}, MISSING),
    ("provider_options", {"config_file": "C:/x.json"}, OUT),
    ("provider_options", {"config_file": "..\\x.json"}, OUT),
    ("provider_options", {"config_file": "link.json"}, OUT),
    ("provider_options", {"cache_dir": "../x"}, "plain word"),
    ("provider_options", {"target": "a/b"}, "plain word"),
    ("provider_options", {"a b": "x"}, "not text to text"),
    ("provider_options", {"opt_level": 2}, "not text to text"),
    ("provider_options", ["x"], "not an object"),
    ("environment", {"XLNX_VART_FIRMWARE": "../net.onnx"}, OUT),
    ("environment", {"XLNX_ONNX_EP_REPORT_FILE": "../x"}, "plain word"),
    ("environment", {"LD_PRELOAD": "x.so"}, "none of the provider's"),
    ("session_config", {"ep.context_file_path": "/x"}, "plain word"),
    ("provider", "", "no provider"),
    ("encryption_option", "PATH", "encryption_option is none"),
]


@pytest.mark.parametrize(("table", "content", "words"), REFUSED)
def test_bad_sessions_are_refused_alike(
    table: str, content: object, words: str, driver: Driver, bundle: Path, install: Path
) -> None:
    """What names files of the machine, or is damaged: refused by both, with the same words."""
    folder = write_session(bundle, {"provider": "VitisAIExecutionProvider", table: content})
    (folder / "link.json").symlink_to("/etc/hostname")
    _, error = in_cpp(driver, bundle, {})
    assert words in error
    with pytest.raises(AdcompileError) as caught:
        in_python(folder, bundle / "net.onnx", {})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"xclbin": "/no/such.xclbin"}, "no such file for xclbin"),
        ({"config_file": "x.json"}, "takes no config_file"),
        ({"encryption_key": "abc"}, "64 hexadecimal digits"),
    ],
)
def test_bad_wishes_are_refused_alike(
    asked: dict[str, str], words: str, driver: Driver, bundle: Path, install: Path
) -> None:
    """Given when the bundle is run, and naming the option."""
    folder = write_session(bundle, plan_session("phx", "1.4", "xint8", "net-key"))
    _, error = in_cpp(driver, bundle, asked)
    assert words in error
    with pytest.raises(UsageError, match=words):
        in_python(folder, bundle / "net.onnx", asked)


@pytest.mark.parametrize(
    ("value", "words"),
    [("", "RYZEN_AI_INSTALLATION_PATH is not set"), ("/no/such", "names no folder")],
)
def test_the_installation_must_be_there(
    value: str,
    words: str,
    driver: Driver,
    bundle: Path,
    install: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sentence names the variable, or what it holds. Who needs no installation does not complain."""
    monkeypatch.setenv("RYZEN_AI_INSTALLATION_PATH", value)
    folder = write_session(bundle, plan_session("phx", "1.4", "xint8", "net-key"))
    _, error = in_cpp(driver, bundle, {})
    assert words in error
    with pytest.raises(AdcompileError, match=words):
        in_python(folder, bundle / "net.onnx", {})
    folder = write_session(bundle, plan_session("stx", "1.8", "xint8", "net-key"))
    found, error = in_cpp(driver, bundle, {})
    assert found == in_python(folder, bundle / "net.onnx", {}), error


def test_a_build_names_no_file_elsewhere() -> None:
    """Firmware outside of the installation is given when the bundle is run, not written into it."""
    for name in ("/opt/x.xclbin", "C:\\x.xclbin", "../x.xclbin"):
        with pytest.raises(UsageError, match="cannot name this firmware"):
            plan_session("phx", "1.8", "xint8", "key", Wishes(xclbin=name))
    own = plan_session("phx", "1.8", "xint8", "key", Wishes(xclbin="my.xclbin"))
    assert own.provider_options["xclbin"] == "my.xclbin"


def test_on_the_cpu_nothing_is_resolved(
    driver: Driver, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulation needs no installation."""
    monkeypatch.delenv("RYZEN_AI_INSTALLATION_PATH", raising=False)
    write_session(bundle, plan_session("phx", "1.4", "xint8", "net-key"))
    code, lines = run(driver.path, "onnxruntime", bundle, options={"provider": "cpu"})
    assert code == 0
    assert not any(x.startswith(("AppendExecutionProvider", "environment")) for x in lines)


def test_models_of_the_same_part_share_no_key(driver: Driver, bundle: Path, install: Path) -> None:
    """Files for different numbers of regions: one key each, those of Python."""
    folder = write_session(bundle, plan_session("stx", "1.8", "xint8", "net-key"))
    for size, image in ((4, "1 3 4 6"), (12, "1 3 6 12")):
        (bundle / f"rows{size}.onnx").write_text(f"in x 1 {image}\nout y 1 {image}\n")
    _, lines = run(driver.path, "onnxruntime", bundle, MOSAIC=FLAT)
    given = [x for x in lines if x.startswith("AppendExecutionProvider")]
    for size, line in zip((4, 12), given, strict=True):
        wanted = in_python(folder, bundle / f"rows{size}.onnx", {}).options
        assert f"cache_key={wanted['cache_key']} " in f"{line} "


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """No JSON, or another kind of it."""
    path = tmp_path / "session.json"
    for text in ("", "[]", "{", '{"provider": 3}'):
        path.write_text(text)
        with pytest.raises(FormatError):
            read_session(path)
