"""What a fit is made of: one name per hyper-parameter, in YAML or as ``--key value``.

The effective configuration is saved beside the model as ``config.yaml`` and is accepted back.
Names of the reference systems that mean the same are recognised and answered with ours.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, cast

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from adcompile.errors import FormatError, UsageError

Method = Literal["patchcore", "padim", "efficientad", "vae"]
Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
MAX_CONFIG_BYTES = 1 << 20


def _device(name: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name) is None:
        raise ValueError(f"{name!r} is none of auto, cpu, cuda, cuda:N")
    return name


Device = Annotated[str, AfterValidator(_device)]


class FitConfig(BaseModel):
    """Common to all methods.

    ``image_size`` 0 means the preset's. ``threshold`` "auto" is best F1 where validation holds
    anomalous images and mean + 3 sigma of good ones otherwise. ``device`` is auto, cpu, cuda or
    cuda:N and is saved as it was given: an "auto" model made on a GPU fits again without one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method
    preset: str = ""
    image_size: int = Field(default=0, ge=0, le=4096)
    seed: int = Field(default=0, ge=0)
    batch: int = Field(default=8, ge=1, le=1024)
    layout: str = "auto"
    category: str = ""
    test_ratio: float = Field(default=0.2, ge=0.01, le=0.99)
    validation: Literal["half", "same", "train"] = "half"
    threshold: Literal["auto", "best_f1", "good_only", "manual"] = "auto"
    threshold_value: float | None = None
    sigmas: float = Field(default=3.0, gt=0.0)
    normalisation: Literal["preset", "min_max", "cdf", "sigma6", "none"] = "preset"
    decision: float = Field(default=0.5, gt=0.01, lt=0.99)
    device: Device = "auto"

    def category_in(self, folder: Path) -> str:
        """The category to look for in *folder*: none when it is the category itself, or a file."""
        return self.category if self.category and (folder / self.category).is_dir() else ""


class BackboneConfig(FitConfig):
    """A feature network: an ONNX file, ``filters`` (built in), or a torchvision/timm name.

    ``layers`` are output names (or positions) of an ONNX file, or layer names of the network.
    ``weights`` is ``imagenet``, ``random`` or a state-dict file, for networks made by torch.
    ``tile`` cuts the image (of ``image_size``) into overlapping tiles of that side, each seen by
    the network by itself; ``tile_stride`` is their distance, 0 takes three quarters of a tile.
    ``device`` is ONNX Runtime's, for the features only; "auto" is the CPU, whose features are those
    that the search and the compiled detector are checked against.
    """

    backbone: str = "filters"
    layers: tuple[str, ...] = ()
    weights: str = "imagenet"
    tile: int = Field(default=0, ge=0, le=4096)
    tile_stride: int = Field(default=0, ge=0, le=4096)


class PatchcoreConfig(BackboneConfig):
    """PatchCore. ``coreset_rows`` wins over ``coreset_ratio``; ``projection`` selects in a sparse
    random projection of the features, as the reference systems do. ``whiten`` (0…1, shrinkage)
    whitens the embedding and ``columns`` keeps that many directions; None means 0.01 for the
    built-in filters and no whitening otherwise. ``bank`` is a file with a memory bank made
    elsewhere with the same network: images then set threshold and range only, nothing is whitened."""

    method: Method = "patchcore"
    preset: str = "r0"
    coreset_ratio: Ratio = 0.1
    coreset_rows: int = Field(default=0, ge=0)
    projection: bool = False
    whiten: float | None = Field(default=None, ge=0.0, le=1.0)
    columns: int = Field(default=0, ge=0)
    bank: str = ""
    k: int = Field(default=0, ge=0, le=64)


class PadimConfig(BackboneConfig):
    """PaDiM. ``features`` 0 takes the published number for the backbone, or all channels;
    ``covariance`` is the multiple of the identity added to every covariance, ``pooled_images`` how
    many images' worth of the covariance shared by all patches is added too; 0 and None take the
    preset's (the published formula pools nothing), or what the built-in filters need."""

    method: Method = "padim"
    preset: str = "anomalib"
    features: int = Field(default=0, ge=0)
    covariance: float = Field(default=0.0, ge=0.0)
    pooled_images: int | None = Field(default=None, ge=0)
    square_root: bool | None = None
    blur_sigma: float | None = Field(default=None, ge=0.0)


class TrainedConfig(FitConfig):
    """Networks that are trained here: steps, learning rate, early stop. Their ``device`` "auto" is
    a GPU where torch sees one."""

    learning_rate: float = Field(default=1e-4, gt=0.0)
    epochs: int = Field(default=20, ge=1)
    patience: int = Field(default=5, ge=1)
    weights: str = ""


class EfficientadConfig(TrainedConfig):
    """EfficientAD. ``channels`` of the teacher's output and ``width``, a factor on the hidden
    channels, are small by default, so that training takes two minutes on two cores; published are
    384 channels, width 1 and 256-pixel images. ``teacher`` is a teacher's state dict of that
    size; without one it is distilled from the built-in filters in ``distill`` steps. ``whiten``
    (0…1, shrinkage) whitens the teacher on the normal images; None means 0.01 for a distilled
    teacher and none for a loaded one. ``learning_rate`` and ``weight_decay`` are Adam's."""

    method: Method = "efficientad"
    preset: str = "anomalib"
    image_size: int = Field(default=160, ge=0, le=4096)
    model_size: Literal["small", "medium"] = "small"
    channels: int = Field(default=32, ge=8, le=1024)
    width: float = Field(default=0.25, gt=0.0, le=2.0)
    teacher: str = ""
    distill: int = Field(default=150, ge=0, le=1_000_000)
    whiten: float | None = Field(default=None, ge=0.0, le=1.0)
    learning_rate: float = Field(default=2e-3, gt=0.0)
    epochs: int = Field(default=30, ge=1)
    weight_decay: float = Field(default=1e-5, ge=0.0)


class VaeConfig(TrainedConfig):
    """R1's VAE. ``latent`` is the size of the code, ``kl`` the weight of its divergence. Preset
    ``local`` scores places, ``r1`` the whole image."""

    method: Method = "vae"
    preset: str = "local"
    learning_rate: float = Field(default=1e-3, gt=0.0)
    epochs: int = Field(default=40, ge=1)
    latent: int = Field(default=128, ge=1, le=4096)
    kl: float = Field(default=0.0005, ge=0.0)


CONFIGS: Mapping[str, type[FitConfig]] = {
    "patchcore": PatchcoreConfig,
    "padim": PadimConfig,
    "efficientad": EfficientadConfig,
    "vae": VaeConfig,
}

OTHER_NAMES: Mapping[str, str] = {
    "coreset_sampling_ratio": "coreset_ratio",
    "num_neighbors": "k",
    "backborn_id": "backbone",
    "backbone_id": "backbone",
    "input_size": "image_size",
    "batch_size": "batch",
    "train_batch_size": "batch",
    "n_features": "features",
    "num_epochs": "epochs",
    "latent_dim": "latent",
    "lr": "learning_rate",
    "normalization_method": "normalisation",
    "normalization": "normalisation",
    "split": "test_ratio",
    "split_ratio": "test_ratio",
    "normal_split_ratio": "test_ratio",
    "n_neighbors": "k",
    "image_norm": "decision",
    "max_epochs": "epochs",
    "backbone_name": "backbone",
    "weight_file": "weights",
    "tile_size": "tile",
    "stride": "tile_stride",
    "pretrained_pth": "weights",
    "model_name": "method",
    "accelerator": "device",
}
"""Names that reference systems use for our parameters."""


def make_config(method: str, values: Mapping[str, object]) -> FitConfig:
    """A checked configuration; unknown names are answered with the known or meant ones."""
    kind = CONFIGS.get(method)
    if kind is None:
        raise UsageError(f"no method is called {method!r}", fix=f"one of {', '.join(CONFIGS)}")
    given = {name.replace("-", "_"): value for name, value in values.items()}
    for name in given:
        if name not in kind.model_fields:
            raise _unknown(name, method, kind)
    try:
        return kind.model_validate(given | {"method": method})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{field} is not valid", where=method, why=first["msg"]) from error


def _unknown(name: str, method: str, kind: type[FitConfig]) -> UsageError:
    meant = OTHER_NAMES.get(name)
    if meant in kind.model_fields:
        return UsageError(
            f"{name} is called {meant} here", fix=f"--{str(meant).replace('_', '-')}"
        )
    near = difflib.get_close_matches(name, list(kind.model_fields), n=1)
    known = ", ".join(sorted(kind.model_fields))
    fix = f"did you mean --{near[0].replace('_', '-')}?" if near else f"known: {known}"
    return UsageError(f"{method} has no parameter {name!r}", fix=fix)


def parse_values(words: list[str]) -> dict[str, object]:
    """``["--coreset-ratio", "0.01"]`` as typed values; ``--layers a,b`` becomes a list."""
    loose, found = split_words(words)
    if loose:
        raise UsageError(f"unexpected argument {loose[0]!r}", fix="parameters are --NAME VALUE")
    return found


def split_words(words: list[str]) -> tuple[list[str], dict[str, object]]:
    """Words that belong to no option, and the options like :func:`parse_values`, in any order."""
    loose: list[str] = []
    found: dict[str, object] = {}
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("--") or len(word) < 3:
            loose.append(word)
            continue
        name, sign, value = word[2:].partition("=")
        if not sign:
            if at >= len(words):
                raise UsageError(f"--{name} needs a value")
            value = words[at]
            at += 1
        found[name.replace("-", "_")] = _typed(name, value)
    return loose, found


def describe_parameters() -> list[tuple[str, str]]:
    """Hyper-parameters with their defaults as they are written on the command line: those of every
    method, then those that a method adds or has another default for."""
    common = FitConfig.model_fields
    groups: list[tuple[str, list[str]]] = [("every method", list(common))]
    for method, kind in CONFIGS.items():
        fields = kind.model_fields
        own = [n for n in fields if n not in common or fields[n].default != common[n].default]
        groups.append((method, own))
    return [
        (title, ", ".join(_as_option(title, n) for n in names if n != "method"))
        for title, names in groups
    ]


def _as_option(method: str, name: str) -> str:
    default: object = CONFIGS.get(method, FitConfig).model_fields[name].default
    shown = "" if default is None or default in ("", ()) else f" {default}"
    return f"--{name.replace('_', '-')}{shown}"


def _typed(name: str, text: str) -> object:
    if name in {"layers", "layer"}:
        return [part for part in text.split(",") if part]
    try:
        value: object = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, (bool, int, float)) else text


def load_config(path: Path) -> dict[str, object]:
    """The values of a ``config.yaml``."""
    if not path.is_file():
        raise UsageError("no such configuration", where=str(path))
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise FormatError("configuration is too large", where=str(path))
    try:
        data: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError("configuration is not YAML", where=str(path), why=str(error)) from error
    if not isinstance(data, dict):
        raise FormatError("configuration is not a mapping", where=str(path))
    return {str(key): value for key, value in cast("dict[object, object]", data).items()}


def dump_config(config: FitConfig) -> str:
    """The configuration as YAML, sorted, every value written out."""
    data = config.model_dump(mode="json")
    # types-PyYAML leaves one unused parameter unknown
    return yaml.safe_dump(data, sort_keys=True, allow_unicode=True)  # pyright: ignore[reportUnknownMemberType]
