"""Registered passes: name to class. Nothing is imported until a name is used."""

from __future__ import annotations

from collections.abc import Mapping

GROUP = "adcompile.passes"  # entry points of installed plug-ins

PASSES: Mapping[str, str] = {
    "approximations": "adcompile.passes.approximations:Approximations",
    "bind-defaults": "adcompile.passes.bind_defaults:BindDefaults",
    "check-weights": "adcompile.passes.check_weights:CheckWeights",
    "clean-up": "adcompile.passes.clean_up:CleanUp",
    "common-subexpressions": "adcompile.passes.common_subexpressions:CommonSubexpressions",
    "dead-code": "adcompile.passes.dead_code:DeadCode",
    "dedupe-constants": "adcompile.passes.dedupe_constants:DedupeConstants",
    "embed-head": "adcompile.passes.embed_head:EmbedHead",
    "fold-affine": "adcompile.passes.fold_affine:FoldAffine",
    "fold-constants": "adcompile.passes.fold_constants:FoldConstants",
    "fold-shapes": "adcompile.passes.fold_shapes:FoldShapes",
    "infer-shapes": "adcompile.passes.infer_shapes:InferShapes",
    "inline-control-flow": "adcompile.passes.inline_control_flow:InlineControlFlow",
    "inline-functions": "adcompile.passes.inline_functions:InlineFunctions",
    "max-pool-1x1": "adcompile.passes.subsampling:MaxPool1x1",
    "max-pool-1x1-to-slice": "adcompile.passes.subsampling:MaxPool1x1ToSlice",
    "maxpool-1x1-as-3x3": "adcompile.passes.subsampling:MaxPool1x1As3x3",
    "merge-reshapes": "adcompile.passes.merge_reshapes:MergeReshapes",
    "name-nodes": "adcompile.passes.name_nodes:NameNodes",
    "raise-anomaly": "adcompile.passes.raise_anomaly:RaiseAnomaly",
    "set-attribute": "adcompile.passes.set_attribute:SetAttribute",
    "specialize": "adcompile.passes.specialize:Specialize",
    "trim-control-flow": "adcompile.passes.trim_control_flow:TrimControlFlow",
    "upsample-to-resize": "adcompile.passes.upsample_to_resize:UpsampleToResize",
}
