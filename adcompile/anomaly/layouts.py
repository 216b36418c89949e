"""Finding images in the folder layouts people have, or saying what was expected and found.

| layout | tree |
|---|---|
| ``mvtec`` | train/good, test/good, test/KIND, ground_truth/KIND/NAME_mask.png |
| ``r1`` | train/CATEGORY, test/CATEGORY/normal, test/CATEGORY/anomaly |
| ``folder`` | good (or ok, normal), bad (or ng, anomaly, …), optional mask |
| ``images`` | normal images only, in any sub-folders |

A folder whose sub-folders are MVTec categories is a collection: ask for one by name, or read all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adcompile.anomaly.images import is_image
from adcompile.anomaly.samples import DataSet, Sample, SplitOptions, divide, share
from adcompile.errors import InputError, UsageError

GOOD = ("good", "ok", "normal")
BAD = ("bad", "ng", "anomaly", "anomalous", "abnormal", "defect", "defective")
MASKS = ("mask", "masks", "ground_truth")

EXPECTED: Mapping[str, str] = {
    "mvtec": (
        "DIR/train/good/*.png\nDIR/test/good/*.png\nDIR/test/KIND/*.png\n"
        "DIR/ground_truth/KIND/*_mask.png   (optional)"
    ),
    "r1": "DIR/train/CATEGORY/*.png\nDIR/test/CATEGORY/normal/*.png\nDIR/test/CATEGORY/anomaly/*.png",
    "folder": "DIR/good/*.png\nDIR/bad/*.png   (optional)\nDIR/mask/*.png   (optional)",
    "images": "DIR/**/*.png   (normal images)",
}


def find_images(folder: Path) -> list[Path]:
    """All image files under *folder*, sorted by path; links to folders are not followed."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        found += [here / name for name in files if is_image(here / name)]
    return sorted(found, key=lambda path: path.parts)


def read_folder(
    folder: Path, options: SplitOptions | None = None, *, layout: str = "auto", category: str = ""
) -> DataSet:
    """The data set in *folder*. ``layout`` "auto" takes the first that fits."""
    chosen = options or SplitOptions()
    if not folder.is_dir():
        raise InputError("no such data folder", where=str(folder))
    if layout == "auto":
        layout = detect(folder, category)
    reader = _READERS.get(layout)
    if reader is None:
        raise UsageError(
            f"no data layout is called {layout!r}", fix=f"one of auto, {', '.join(_READERS)}"
        )
    return reader(folder, category, chosen)


def detect(folder: Path, category: str = "") -> str:
    """The name of the layout that fits *folder*; an InputError shows expected and found trees."""
    inside = folder / category if category else folder
    if (inside / "train" / "good").is_dir():
        return "mvtec"
    if _r1_categories(folder):
        return "r1"
    if _sub(folder, GOOD) is not None:
        return "folder"
    if categories(folder):
        raise UsageError(
            "the folder holds several categories",
            where=str(folder),
            why=", ".join(categories(folder)[:20]),
            fix="name one with --category, or use --all",
        )
    if find_images(folder) and not (folder / "train").exists():
        return "images"
    raise _mismatch(folder, tuple(EXPECTED))


def categories(folder: Path) -> tuple[str, ...]:
    """Names of the sub-folders that are MVTec categories, sorted."""
    names = (p.name for p in folder.iterdir() if (p / "train" / "good").is_dir())
    return tuple(sorted(names))


def tree(folder: Path) -> str:
    """The folder tree as text: sub-folders with their image counts, cut after 40 lines."""
    depth, limit = 3, 40
    lines = [folder.name + "/"]

    def walk(here: Path, level: int) -> None:
        inside = sorted(p for p in here.iterdir() if not p.name.startswith("."))
        images = sum(1 for p in inside if p.is_file() and is_image(p))
        others = sum(1 for p in inside if p.is_file()) - images
        if images or others:
            counts = [
                f"{images} images" if images else "",
                f"{others} other files" if others else "",
            ]
            lines.append("  " * level + "(" + ", ".join(c for c in counts if c) + ")")
        for child in inside:
            if not child.is_dir() or len(lines) >= limit:
                continue
            lines.append("  " * level + child.name + "/")
            if level < depth:
                walk(child, level + 1)

    walk(folder, 1)
    return "\n".join([*lines[:limit], "…"] if len(lines) > limit else lines)


def _mismatch(folder: Path, layouts: Sequence[str]) -> InputError:
    wanted = "\n".join(
        f"{name}:\n" + "\n".join("  " + line for line in EXPECTED[name].splitlines())
        for name in layouts
    )
    return InputError(
        "the data folder has none of the known layouts"
        if len(layouts) > 1
        else f"the data folder does not have the {layouts[0]} layout",
        where=str(folder),
        why=f"expected\n{wanted}\nfound\n{tree(folder)}",
    )


def _sub(folder: Path, names: Sequence[str]) -> Path | None:
    known = {p.name.lower(): p for p in folder.iterdir() if p.is_dir()}
    return next((known[name] for name in names if name in known), None)


def _r1_categories(folder: Path) -> tuple[str, ...]:
    train, test = folder / "train", folder / "test"
    if not train.is_dir() or not test.is_dir():
        return ()
    names = sorted(p.name for p in train.iterdir() if p.is_dir())
    return tuple(
        n for n in names if (test / n / "normal").is_dir() or (test / n / "anomaly").is_dir()
    )


def _normal(folder: Path) -> list[Sample]:
    return [Sample(path, 0) for path in find_images(folder)]


def _mvtec(folder: Path, category: str, options: SplitOptions) -> DataSet:
    root = folder / category if category else folder
    good = root / "train" / "good"
    if not good.is_dir():
        raise _mismatch(root if root.is_dir() else folder, ("mvtec",))
    test: list[Sample] = []
    notes: list[str] = []
    unmasked = 0
    for kind in (
        sorted(p for p in (root / "test").iterdir() if p.is_dir())
        if (root / "test").is_dir()
        else ()
    ):
        masks = _masks(root / "ground_truth" / kind.name)
        label = int(kind.name != "good")
        for path in find_images(kind):
            mask = masks.pop(path.stem.casefold(), None) if label else None
            unmasked += int(bool(label) and mask is None)
            test.append(Sample(path, label, kind.name, mask))
        if masks:
            raise InputError(
                "masks without images",
                where=str(root / "ground_truth" / kind.name),
                why=", ".join(sorted(p.name for p in masks.values())[:5]),
            )
    if unmasked and any(s.mask for s in test):
        notes.append(f"{unmasked} anomalous test images have no mask")
    return divide(root.name, "mvtec", _normal(good), test, options, notes)


def _masks(folder: Path) -> dict[str, Path]:
    """Mask files by the stem of the image they belong to ("000_mask" and "000" both are "000")."""
    if not folder.is_dir():
        return {}
    return {path.stem.removesuffix("_mask").casefold(): path for path in find_images(folder)}


def _r1(folder: Path, category: str, options: SplitOptions) -> DataSet:
    known = _r1_categories(folder)
    if not known:
        raise _mismatch(folder, ("r1",))
    name = category or (known[0] if len(known) == 1 else "")
    if name not in known:
        raise UsageError(
            f"no category {category!r}" if category else "the folder holds several categories",
            where=str(folder),
            fix=f"--category with one of {', '.join(known[:20])}",
        )
    test = [Sample(p, 0) for p in _images_if(folder / "test" / name / "normal")]
    test += [Sample(p, 1, "anomaly") for p in _images_if(folder / "test" / name / "anomaly")]
    return divide(name, "r1", _normal(folder / "train" / name), test, options)


def _images_if(folder: Path) -> list[Path]:
    return find_images(folder) if folder.is_dir() else []


def _good_bad(folder: Path, category: str, options: SplitOptions) -> DataSet:
    good = _sub(folder, GOOD)
    if good is None:
        raise _mismatch(folder, ("folder",))
    bad, mask = _sub(folder, BAD), _sub(folder, MASKS)
    masks = _masks(mask) if mask else {}
    test = (
        [Sample(p, 1, _kind(p, bad), masks.pop(p.stem.casefold(), None)) for p in _images_if(bad)]
        if bad
        else []
    )
    if masks and not test:
        raise InputError("masks without images", where=str(mask))
    return divide_normal(category or folder.name, "folder", _normal(good), test, options)


def _kind(path: Path, folder: Path) -> str:
    inside = path.parent.relative_to(folder).parts
    return inside[0] if inside else "bad"


def _images(folder: Path, category: str, options: SplitOptions) -> DataSet:
    return divide_normal(category or folder.name, "images", _normal(folder), [], options)


def divide_normal(
    category: str,
    layout: str,
    normal: Sequence[Sample],
    bad: Sequence[Sample],
    options: SplitOptions,
) -> DataSet:
    """A data set whose normal images are not yet split: a share of them is tested with *bad*."""
    if not normal:
        raise InputError("no normal image was found", where=category)
    if not bad:
        return divide(category, layout, normal, [], options)
    options.check()
    train, held = share(normal, options.test_ratio, options.seed)
    return divide(category, layout, train or normal, [*held, *bad], options)


_READERS: dict[str, Callable[[Path, str, SplitOptions], DataSet]] = {
    "mvtec": _mvtec,
    "r1": _r1,
    "folder": _good_bad,
    "images": _images,
}
