"""The bundle's manifest: plain typed records, read and written as JSON. Knows no IR.

``manifest.json`` holds no clock, no host name and no absolute path: the same build gives the same
bytes. A reader checks schema, sizes and hashes before anything of the bundle is used.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from math import prod
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adcompile.contract import Contract
from adcompile.errors import FormatError

SCHEMA = 1
MANIFEST = "manifest.json"
ARCHIVE = ".adz"  # suffix of a packed bundle
SEAL = "seal"  # key of the digest over all other keys
MAX_MANIFEST_BYTES = 64 << 20


class Record(BaseModel):
    """Base of all manifest records: immutable, unknown keys of the same schema are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


_ITEM_BYTES = {  # of numpy dtypes that have other than 4
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
}


class TensorSpec(Record):
    """Name, numpy dtype name and shape of a tensor; a free dimension is its symbol as a string.

    Values that are no tensors have types like ``sequence(float32)`` and ``optional(float32)``.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of the tensor, where a free dimension counts as one."""
        count = prod(d if isinstance(d, int) else 1 for d in self.shape)
        return count * _ITEM_BYTES.get(self.dtype, 4)

    @property
    def is_tensor(self) -> bool:
        """False for sequences and optionals."""
        return "(" not in self.dtype


class FileRecord(Record):
    """Size in bytes and SHA-256 of one file of the bundle."""

    size: int
    sha256: str


class PartRecord(Record):
    """One part of the bundle, in execution order.

    ``executor`` is the backend family that runs it on the device; ``files`` maps a use
    ("model": float ONNX, "simulation": the ONNX that stands for the device's numbers, "plan",
    "recipe" …) to a bundle path.
    """

    name: str
    placement: str
    role: str
    executor: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: dict[str, str]
    options: dict[str, str] = Field(default_factory=dict)
    rows: str = ""
    nodes: int = 0
    macs: int = 0


class RewriteRecord(Record):
    """One applied rewrite. ``error`` is the measured change (max abs) where it was measured."""

    rule: str
    node: str
    exactness: str
    detail: str = ""
    error: float | None = None


PYTHON = "{python}"
"""In the words of an action: the Python that runs adcompile."""


class ActionRecord(Record):
    """A vendor command of the build and what became of it: done, pending or failed.

    Its words name files as the manifest does; it runs in the bundle's folder.
    """

    name: str
    part: str
    tool: str
    argv: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    state: str = "pending"
    detail: str = ""

    def command(self, bundle: Path) -> str:
        """A line for the shell that works wherever it is typed."""
        words = ["python" if word == PYTHON else word for word in self.argv]
        return f"(cd {shlex.quote(str(bundle))} && {shlex.join(words)})"


class ModelRecord(Record):
    """Identity and interface of the source model."""

    name: str
    sha256: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class GoldenSample(Record):
    """Bundle paths of one recorded sample: tensor name to ``.npy`` file."""

    inputs: dict[str, str]
    outputs: dict[str, str]
    boundaries: dict[str, str] = Field(default_factory=dict)
    source: str = ""


class JudgedImage(Record):
    """An image on which a deployed detector is held against the float one, and float's answer.

    ``file`` is an image, or the input tensor itself (``.npy``). ``label`` is 1 when it is anomalous,
    ``score`` raw. ``mask`` is a picture of the input's size, not black where the defect is.
    """

    file: str
    label: int
    score: float
    anomalous: bool
    mask: str = ""


class Accuracy(Record):
    """What a detector may lose against its float model (``budgets``, such as ``auroc_loss<=0.05``),
    and what the float model said. ``maps`` is its averaged maps [N, h, w], ``pixels`` what its whole
    maps came to by the masks."""

    budgets: tuple[str, ...]
    images: tuple[JudgedImage, ...]
    maps: str
    pixels: dict[str, float] = {}


class Manifest(Record):
    """Everything a reader needs to run, check and explain a bundle."""

    schema_version: int = SCHEMA
    adcompile: str
    model: ModelRecord
    contract: Contract
    target: str
    target_facts: dict[str, str] = Field(default_factory=dict)
    options: dict[str, str] = Field(default_factory=dict)
    identity: dict[str, str] = Field(default_factory=dict)  # what decided the content, see Job
    pipeline: str = ""
    roles: dict[str, str] = Field(default_factory=dict)  # output name -> role
    tolerances: dict[str, tuple[float, float]] = Field(default_factory=dict)  # role -> rtol, atol
    parts: tuple[PartRecord, ...]
    golden: tuple[GoldenSample, ...] = ()
    accuracy: Accuracy | None = None
    actions: tuple[ActionRecord, ...] = ()
    rewrites: tuple[RewriteRecord, ...] = ()
    tools: dict[str, str] = Field(default_factory=dict)
    verified_on: str = ""
    results: dict[str, float | str] = Field(default_factory=dict)
    files: dict[str, FileRecord] = Field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # groups of files that ``pack --without`` left behind

    def dump(self) -> str:
        """The canonical JSON text: sorted keys, two spaces, final newline, and a seal.

        The seal is a digest over everything else, so that a reader notices an edit.
        """
        data: dict[str, object] = self.model_dump(mode="json")
        data[SEAL] = seal_of(data)
        return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def seal_of(data: Mapping[str, object]) -> str:
    """Digest over all keys but the seal itself."""
    rest = {key: value for key, value in data.items() if key != SEAL}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_seal(bundle: Path, name: str = MANIFEST) -> None:
    """Refuse a manifest that was edited after it was written. Call it after ``read_manifest``."""
    raw: dict[str, object] = json.loads((bundle / name).read_text(encoding="utf-8"))
    if raw.get(SEAL) != seal_of(raw):
        raise FormatError(
            "manifest was changed",
            where=str(bundle / name),
            why="its content does not fit its seal",
            fix="build the bundle again with other options instead of editing it",
        )


def read_manifest(bundle: Path, name: str = MANIFEST) -> Manifest:
    """Read and check the manifest of *bundle*. Raises FormatError with the field at fault."""
    path = bundle / name
    if not bundle.is_dir():
        why = "it is a file" if bundle.is_file() else "no such folder"
        fix = f"adcompile unpack {bundle} -o FOLDER" if bundle.suffix.lower() == ARCHIVE else ""
        raise FormatError("not a bundle", where=str(bundle), why=why, fix=fix)
    if not path.is_file():
        raise FormatError(
            "not a bundle",
            where=str(bundle),
            why=f"it has no {name}",
            fix="give the folder that `adcompile build -o FOLDER` wrote",
        )
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise FormatError("manifest too large", where=str(path), why="over 64 MiB")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError("manifest is not JSON", where=str(path), why=str(error)) from error
    if not isinstance(raw, dict):
        raise FormatError("manifest is not a JSON object", where=str(path))
    schema: object = raw.get("schema_version")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(schema, int):
        raise FormatError("manifest has no schema_version", where=str(path))
    if schema > SCHEMA:
        raise FormatError(
            f"bundle schema {schema} is newer than this adcompile reads ({SCHEMA})",
            where=str(path),
            fix=f"install the adcompile that wrote it ({raw.get('adcompile', 'unknown')})",  # pyright: ignore[reportUnknownMemberType]
        )
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(x) for x in first["loc"])
        raise FormatError(
            "manifest does not fit its schema", where=f"{path}: {field}", why=first["msg"]
        ) from error
    for name in manifest.files:
        check_bundle_path(name)
    return manifest


def check_bundle_path(name: str) -> PurePosixPath:
    """Refuse a bundle path that is absolute, climbs out, or is not in plain POSIX form."""
    path = PurePosixPath(name)
    bad = (
        not name
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or ":" in name
        or "\0" in name
        or str(path) != name
    )
    if bad:
        raise FormatError(
            "unsafe path in bundle", where=repr(name), why="must be relative, inside"
        )
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_files(bundle: Path, manifest: Manifest) -> None:
    """Compare every listed file's size and SHA-256; raise FormatError naming the first that differs.

    Symbolic links are refused: a bundle is a plain folder.
    """
    check_listed(bundle, manifest.files)


def check_listed(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """The same for any list of files below *folder*."""
    for name, record in sorted(files.items()):
        path = folder / check_bundle_path(name)
        if path.is_symlink() or not path.is_file():
            raise FormatError("bundle file is missing", where=name, fix="build the bundle again")
        size = path.stat().st_size
        if size != record.size:
            raise FormatError(
                "bundle file has the wrong size",
                where=name,
                why=f"{size} bytes, manifest says {record.size}",
                fix="build the bundle again",
            )
        if file_sha256(path) != record.sha256:
            raise FormatError(
                "bundle file was changed",
                where=name,
                why="its SHA-256 is not the one in the manifest",
                fix="build the bundle again",
            )
