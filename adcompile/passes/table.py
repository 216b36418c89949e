"""Registered passes: name to class. Nothing is imported until a name is used."""

from __future__ import annotations

from collections.abc import Mapping

GROUP = "adcompile.passes"  # entry points of installed plug-ins

PASSES: Mapping[str, str] = {
    "clean-up": "adcompile.passes.clean_up:CleanUp",
    "common-subexpressions": "adcompile.passes.common_subexpressions:CommonSubexpressions",
    "dead-code": "adcompile.passes.dead_code:DeadCode",
    "dedupe-constants": "adcompile.passes.dedupe_constants:DedupeConstants",
    "fold-affine": "adcompile.passes.fold_affine:FoldAffine",
    "fold-constants": "adcompile.passes.fold_constants:FoldConstants",
    "fold-shapes": "adcompile.passes.fold_shapes:FoldShapes",
    "infer-shapes": "adcompile.passes.infer_shapes:InferShapes",
    "merge-reshapes": "adcompile.passes.merge_reshapes:MergeReshapes",
    "specialize": "adcompile.passes.specialize:Specialize",
}
