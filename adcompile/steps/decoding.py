"""A model's contract, and the end that a detector's graph lacks: which it is, and how it is appended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from adcompile.contract import CONTRACT_KEY, Contract, Decoder, parse_contract
from adcompile.declare import find_contract
from adcompile.detection.decoders import NONE, parse_decoder
from adcompile.detection.exported import Exported, read_exported
from adcompile.detection.recognise import Recognised, recognise
from adcompile.detection.tail import RAW
from adcompile.errors import UsageError
from adcompile.interfaces import Report
from adcompile.ir.graph import tensor_spec
from adcompile.manifest import TensorSpec
from adcompile.outputs import Taken, take_outputs
from adcompile.passes.decode_detections import RESULTS, DecodeDetections
from adcompile.passes.specialize import real_inputs
from adcompile.rewrite.pipeline import Pipeline

LETTERBOX: Mapping[str, object] = {"resize": "letterbox", "resample": "cv_bilinear"}
"""What YOLO detectors are trained with: aspect kept, padded with 114, no antialiasing."""


@dataclass
class Decoding:
    """A model's contract, the passes that append its decoder (None: there is nothing to append), what
    the user should know, and what each output is taken for and why."""

    contract: Contract
    append: Pipeline | None = None
    notes: list[str] = field(default_factory=list[str])
    outputs: dict[str, Taken] = field(default_factory=dict[str, Taken])

    def apply(self, model: ir.Model, report: Report) -> None:
        """Append the decoder to *model*, and learn what its outputs are now called."""
        if self.append is None:
            return
        before = [value.name for value in model.graph.outputs]
        self.append.run(model, report)
        made = [v.name or "" for v in model.graph.outputs if v.name not in before]
        found = {v.name or "": self.outputs.get(v.name or "") for v in model.graph.outputs}
        self.outputs = {name: taken for name, taken in found.items() if taken is not None}
        why = "decode-detections makes it"
        self.outputs |= {n: Taken(r, why) for n, r in zip(made, RESULTS, strict=True)}
        self.know_roles()

    def know_roles(self) -> None:
        """Let the contract say what the outputs are taken for."""
        roles = {name: taken.role for name, taken in self.outputs.items()}
        self.contract = self.contract.model_copy(update={"roles": roles})

    def take(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        declared: Mapping[str, str],
    ) -> None:
        """Judge the model's own outputs."""
        self.outputs = take_outputs(inputs, outputs, declared, len(self.contract.classes))
        self.know_roles()


def settle_contract(
    model: ir.Model,
    inputs: Sequence[TensorSpec] | None = None,
    *,
    given: Contract | None = None,
    preset: str | None = None,
    asked: str | None = None,
    classes: tuple[str, ...] = (),
) -> Decoding:
    """The contract of *model*, with inputs of the shapes of *inputs* (None: its own).

    *given* is the user's contract, *preset* his pre-processing, *classes* his names. *asked* is a
    decoder's text or ``none``; without it the contract's decoder counts, else the one that is
    recognised. Raises UsageError for a decoder beside a batch of several images.
    """
    specs = inputs or [tensor_spec(value) for value in real_inputs(model)]
    outputs = [tensor_spec(value) for value in model.graph.outputs]
    exported = read_exported(model.metadata_props)
    declared = _declared(model, given, preset)
    decoder, seen = _decoder(model, exported, declared.decoder, asked)
    several = [
        s.name
        for s in specs
        if len(s.shape) == 4 and isinstance(s.shape[0], int) and s.shape[0] != 1
    ]
    trained = _trained(decoder, exported, numbers=preset is None)
    contract, notes = find_contract(model.metadata_props, specs, given, preset, trained=trained)
    names = classes or contract.classes or (exported.names if exported is not None else ())
    found = Decoding(contract.model_copy(update={"classes": names}), notes=notes)
    found.take(specs, outputs, declared.roles)
    if decoder is None:
        found.notes += [seen.why] if seen.why else []
    elif asked == NONE or (several and seen.why):
        _leave_raw(found, decoder, seen, several)
    elif several:
        raise UsageError(
            "a decoder reads one image at a time",
            where=f"input {several[0]!r}",
            fix="--input-shape with a batch of 1, or --decoder none",
        )
    else:
        _append(found, decoder, seen)
    return found


def _declared(model: ir.Model, given: Contract | None, preset: str | None) -> Contract:
    """What is declared: by the user, else in the model's metadata, else nothing."""
    text = model.metadata_props.get(CONTRACT_KEY)
    if given is not None or text is None or preset is not None:
        return given or Contract()
    return parse_contract(text, "model metadata")


def _decoder(
    model: ir.Model, exported: Exported | None, declared: Decoder | None, asked: str | None
) -> tuple[Decoder | None, Recognised]:
    if asked is not None and asked != NONE:
        return parse_decoder(asked), Recognised()
    if declared is not None and asked is None:
        return declared, Recognised()
    seen = recognise(model, exported)
    return seen.decoder, seen


def _trained(
    decoder: Decoder | None, exported: Exported | None, *, numbers: bool
) -> dict[str, object]:
    """What differs from a plain guess in the pre-processing of a detector or an Ultralytics model;
    *numbers*: also in its values."""
    if exported is not None and exported.task == "classify":
        return {"resize": "shorter"}
    if decoder is None and (exported is None or not exported.task):
        return {}
    changes = dict(LETTERBOX)
    if decoder is not None and decoder.preset == "rtdetr":
        changes["resize"] = "stretch"
    if numbers and decoder is not None and decoder.preset.startswith("yolox"):
        changes |= {"scale": 1.0, "channels": "bgr"}
    return changes


def _leave_raw(
    found: Decoding, decoder: Decoder, seen: Recognised, several: Sequence[str]
) -> None:
    """Say why nothing is decoded, and mark the output as what it is."""
    why = "as asked" if not several else f"input {several[0]!r} holds several images"
    found.notes.append(f"raw detections stay as they are ({why}): {seen.why}")
    found.outputs |= dict.fromkeys(decoder.outputs, Taken(RAW, f"a {decoder.preset} detector's"))
    found.know_roles()


def _append(found: Decoding, decoder: Decoder, seen: Recognised) -> None:
    if seen.why:
        found.notes.append(f"a {decoder.preset} detector: {seen.why}")
    overlap = "" if decoder.layout == "final" else f", NMS at IoU {decoder.iou:g}"
    found.notes.append(
        f"decode-detections appends boxes, scores and labels (scores from {decoder.min_score:g}"
        f"{overlap}; --decoder '{decoder.preset}{{min-score=0.001}}' for average precision, "
        "--decoder none without)"
    )
    found.contract = found.contract.model_copy(update={"decoder": decoder})
    found.append = Pipeline((DecodeDetections(decoder.model_dump_json(exclude_defaults=True)),))
