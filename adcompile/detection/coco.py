"""COCO annotation files: reading with clear errors, class names to category ids, subsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from adcompile.detection.found import Picture, as_picture
from adcompile.errors import FormatError, UsageError
from adcompile.runtime.images import read_image

_MAX_BYTES = 2 << 30  # the largest file COCO publishes has 0.5 GB
_SHOWN = 5
_CLASSES = TypeAdapter(list[str] | dict[int, str])


class _Record(BaseModel):
    # Real files carry more keys than evaluation needs (licences, urls, captions).
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class RunLengths(_Record):
    """A mask as run lengths, down the columns; ``counts`` as numbers or COCO's packed text."""

    size: tuple[int, int]
    counts: list[int] | str


_Polygon = Annotated[list[float], Field(min_length=6)]


class Annotation(_Record):
    """One object: box as x y width height, mask as polygons or run lengths."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float = Field(ge=0)
    iscrowd: int = 0
    segmentation: RunLengths | list[_Polygon] | None = None


class ImageEntry(_Record):
    """One image of the set."""

    id: int
    file_name: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Category(_Record):
    """A class: its number in the file and its name."""

    id: int
    name: str


class _Document(_Record):
    images: list[ImageEntry] = Field(min_length=1)
    categories: list[Category] = Field(min_length=1)
    annotations: list[Annotation]


@dataclass(frozen=True)
class CocoSet:
    """A checked annotation file and the folder of its images."""

    source: Path
    folder: Path
    images: tuple[ImageEntry, ...]  # by id
    categories: tuple[Category, ...]  # by id
    annotations: tuple[Annotation, ...]

    @property
    def names(self) -> dict[int, str]:
        """Category id to class name."""
        return {c.id: c.name for c in self.categories}

    def of_image(self, image_id: int) -> list[Annotation]:
        """The objects of one image, in file order."""
        return [a for a in self.annotations if a.image_id == image_id]

    def subset(
        self, max_samples: int | None = None, ids: Sequence[int] | None = None
    ) -> tuple[ImageEntry, ...]:
        """The images to use: those named by ``ids``, of these the first ``max_samples``.

        Raises UsageError for an id the file lacks or a count below one.
        """
        if max_samples is not None and max_samples < 1:
            raise UsageError("at least one image is needed", where=f"max samples {max_samples}")
        chosen = self.images
        if ids is not None:
            known = {image.id: image for image in self.images}
            absent = [i for i in ids if i not in known]
            if absent:
                raise UsageError(
                    f"no image with id {_some(absent)}",
                    where=str(self.source),
                    fix="use ids from the file's images list",
                )
            chosen = tuple(known[i] for i in dict.fromkeys(ids))
        return chosen[:max_samples]

    def missing(self, images: Iterable[ImageEntry]) -> list[ImageEntry]:
        """Those of ``images`` whose file is not in the folder."""
        return [image for image in images if not self.path(image).is_file()]

    def path(self, image: ImageEntry) -> Path:
        """Where the picture of ``image`` must be. Raises FormatError if it leaves the folder."""
        name = image.file_name
        parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
        outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive
        if not name or outside or ".." in parts:
            raise FormatError(
                "an image file name points outside the image folder",
                where=f"{self.source}: image {image.id}, {name!r}",
                fix="file names must be relative to the image folder",
            )
        return self.folder / name

    def picture(self, image: ImageEntry) -> Picture:
        """Decode ``image``: RGB uint8 [H,W,3]. Raises InputError when it cannot be used."""
        path = self.path(image)
        pixels = as_picture(read_image(path))
        if pixels.shape[:2] != (image.height, image.width):
            raise FormatError(
                "an image has another size than its annotation says",
                where=str(path),
                why=f"file {pixels.shape[1]}x{pixels.shape[0]}, "
                f"annotation {image.width}x{image.height}",
                fix="use the images the annotations were made for",
            )
        return pixels


def read_coco(source: Path, folder: Path) -> CocoSet:
    """Read and check a COCO annotation file.

    Raises FormatError naming the entry at fault: not JSON, keys missing, an annotation of an
    unknown image or category, an id used twice.
    """
    if not folder.is_dir():
        raise UsageError("the image folder does not exist", where=str(folder))
    try:
        size = source.stat().st_size
        text = source.read_bytes() if size <= _MAX_BYTES else b""
    except OSError as error:
        raise UsageError(
            "the annotation file cannot be read", where=str(source), why=str(error.strerror)
        ) from error
    if size > _MAX_BYTES:
        raise FormatError("the annotation file is too large", where=str(source), why=f"{size} B")
    try:
        document = _Document.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(key) for key in first["loc"])
        raise FormatError(
            "not a COCO detection file",
            where=f"{source}: {place}" if place else str(source),
            why=first["msg"],
            fix="expected an object with images, categories and annotations (instances_*.json)",
        ) from error
    _check(document, source)
    return CocoSet(
        source,
        folder,
        tuple(sorted(document.images, key=lambda x: x.id)),
        tuple(sorted(document.categories, key=lambda x: x.id)),
        tuple(document.annotations),
    )


def _check(document: _Document, source: Path) -> None:
    images = _unique([x.id for x in document.images], "image", source)
    categories = _unique([x.id for x in document.categories], "category", source)
    _unique([x.id for x in document.annotations], "annotation", source)
    for known, key in ((images, "image_id"), (categories, "category_id")):
        strangers = [a.id for a in document.annotations if getattr(a, key) not in known]
        if strangers:
            raise FormatError(
                f"annotations name a {key} the file does not define",
                where=f"{source}: annotation {_some(strangers)}",
                fix="repair the file, or leave these annotations out",
            )


def _unique(ids: list[int], kind: str, source: Path) -> set[int]:
    seen: set[int] = set()
    for number in ids:
        if number in seen:
            raise FormatError(f"{kind} id {number} is used twice", where=str(source))
        seen.add(number)
    return seen


def category_ids(coco: CocoSet, classes: Mapping[int, str] | None) -> dict[int, int]:
    """Model label to category id, matched by class name (case and outer spaces ignored).

    ``classes`` maps the model's labels to names; labels without a partner in the file (such as
    the background) are left out. None: the labels are the file's category ids already. Raises
    UsageError when a class of the file is unknown to the model, or a name is ambiguous.
    """
    if classes is None:
        return {c.id: c.id for c in coco.categories}
    labels: dict[str, int] = {}
    for label, name in classes.items():
        if _key(name) in labels:
            raise UsageError(f"two labels of the model are named {name!r}", where=f"label {label}")
        labels[_key(name)] = label
    unknown = [c.name for c in coco.categories if _key(c.name) not in labels]
    if unknown:
        raise UsageError(
            f"the model has no class {_some(unknown)}",
            where=str(coco.source),
            why=f"its classes are {_some(list(classes.values()))}",
            fix="rename the categories, or give the model's class names in label order",
        )
    return {labels[_key(c.name)]: c.id for c in coco.categories}


def read_classes(path: Path) -> dict[int, str]:
    """Class names of a model from a file: a JSON list or object, or one name per line.

    In a list or a text file the first name belongs to label 0 (torchvision: the background).
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return dict(enumerate(text.splitlines()))
        value = _CLASSES.validate_json(text)
        return dict(enumerate(value)) if isinstance(value, list) else value
    except (OSError, ValueError) as error:
        raise FormatError("class names cannot be read", where=str(path), why=str(error)) from error


def _key(name: str) -> str:
    return name.strip().lower()


def _some(values: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in values[:_SHOWN])
    more = len(values) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
