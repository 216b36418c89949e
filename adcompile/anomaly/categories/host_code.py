"""What the generated C++ program reads for a category: its bank file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adcompile.anomaly.bank import pack_bank, prepare_bank
from adcompile.anomaly.categories.site import Site
from adcompile.anomaly.maps import Array
from adcompile.anomaly.statistics import USE
from adcompile.fileset import FileSet
from adcompile.runtime.bundle import Bundle


@dataclass(frozen=True)
class HostFiles:
    """Paths in the category's folder."""

    banks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def host_files(bundle: Bundle, site: Site, arrays: Mapping[str, Array], out: FileSet) -> HostFiles:
    """Add the files to *out*. A bundle without C++ project needs none.

    PaDiM's file of statistics is there anyway. A bundle from before there was one has its program's
    statistics among the other constants.
    """
    if "host/src/parts.cpp" not in bundle.manifest.files:
        return HostFiles()
    if site.kind == "patchcore":
        path = out.add("bank/memory_bank.adbank", pack_bank(prepare_bank(arrays["bank"])))
        return HostFiles(banks=(path,))
    if USE in site.part.files:
        return HostFiles()
    note = "the C++ program cannot switch to this category: the bundle was built before it could"
    return HostFiles(notes=(note,))
