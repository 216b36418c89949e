"""What the generated C++ program reads for a category: a bank file, or another weights file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adcompile.anomaly.bank import pack_bank, prepare_bank
from adcompile.anomaly.categories.site import Site
from adcompile.anomaly.maps import Array
from adcompile.backends.host.codegen.text import generate
from adcompile.errors import Unsupported
from adcompile.fileset import FileSet
from adcompile.ir import model_io
from adcompile.runtime.bundle import Bundle


@dataclass(frozen=True)
class HostFiles:
    """Paths in the category's folder; the digest is that of the weights file's payload."""

    banks: tuple[str, ...] = ()
    weights: str = ""
    weights_sha256: str = ""
    notes: tuple[str, ...] = ()


def host_files(bundle: Bundle, site: Site, arrays: Mapping[str, Array], out: FileSet) -> HostFiles:
    """Add the files to *out*. A bundle without C++ project needs none.

    PaDiM's statistics are constants of the program. They are laid out again, and only taken when
    the sources that come with them are those the bundle's program was compiled from.
    """
    if "host/src/parts.cpp" not in bundle.manifest.files:
        return HostFiles()
    if site.kind == "patchcore":
        path = out.add("bank/memory_bank.adbank", pack_bank(prepare_bank(arrays["bank"])))
        return HostFiles(banks=(path,))
    models = [
        (
            part.name,
            site.replaced(arrays)
            if part.name == site.part.name
            else model_io.load_model(bundle.path / part.files["model"]),
        )
        for part in bundle.manifest.parts
        if part.placement == "host"
    ]
    note = "the C++ program cannot switch to this category: "
    try:
        generated = generate(models)
    except Unsupported as error:
        return HostFiles(notes=(note + error.what,))
    for name, text in generated.files.items():
        file = bundle.path / "host" / "src" / name
        same = file.is_file() and file.read_text(encoding="utf-8") == text
        if not same and name != "parts.cpp":  # that one holds the digest, which is new
            return HostFiles(notes=(note + f"{name} would be another",))
    path = out.add("weights.bin", generated.weights.file())
    return HostFiles(weights=path, weights_sha256=generated.weights.sha256().hex())
