"""Pre-processing that does not fit the network: normalised twice, wrong numbers, missing crop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from adcompile.anomaly.lint.subject import Complaint, Subject
from adcompile.anomaly.presets import PRESETS
from adcompile.contract import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from adcompile.ir.graph import static_shape

NEAR = 0.06  # of a mean or std: closer than any other customary number


def _normalises(rule: Preprocess) -> bool:
    return any(m != 0.0 for m in rule.mean) or any(s != 1.0 for s in rule.std)


def double_normalisation(subject: Subject) -> Iterator[Complaint]:
    """Mean and standard deviation are taken out by the contract and again by the graph."""
    for name, rule in subject.contract.inputs.items():
        steps = list(subject.first_steps(name))
        shifts = [s for s in steps if s.op in {"Sub", "Add"} and np.any(s.numbers != 0.0)]
        divides = [s for s in steps if s.op in {"Div", "Mul"} and s.numbers.size == 3]
        if _normalises(rule) and (shifts or divides):
            node = (shifts or divides)[0].node
            yield Complaint(
                f"input {name!r}",
                f"the contract normalises with mean {rule.mean}, std {rule.std}, and the graph "
                f"does it again (node {node.name!r})",
                "use mean 0 and std 1 (--preprocess unit), or export without the normalisation",
            )


def double_scaling(subject: Subject) -> Iterator[Complaint]:
    """Pixels are divided by 255 by the contract and again by the graph."""
    for name, rule in subject.contract.inputs.items():
        for step in subject.first_steps(name):
            factor = float(step.numbers[0])
            factor = 1.0 / factor if step.op == "Div" and factor else factor
            shrinks = step.op in {"Div", "Mul"} and 0.0 < factor < 0.01
            if step.numbers.size == 1 and shrinks and rule.scale < 0.01:
                yield Complaint(
                    f"input {name!r}",
                    f"the contract scales pixels by {rule.scale:.6g} and the graph by 1/255 again "
                    f"(node {step.node.name!r})",
                    "use scale 1 (--preprocess raw), or export without the scaling",
                )


def _nearly(values: tuple[float, ...], wanted: tuple[float, ...]) -> bool:
    gaps = np.abs(np.asarray(values) - np.asarray(wanted))
    return bool(np.all(gaps < NEAR) and np.any(gaps > 1e-3))


def wrong_constants(subject: Subject) -> Iterator[Complaint]:
    """Nearly the ImageNet mean or standard deviation, but not quite; or in the other order."""
    for name, rule in subject.contract.inputs.items():
        if len(rule.mean) != 3:
            continue
        for label, values, wanted in (
            ("mean", rule.mean, IMAGENET_MEAN),
            ("std", rule.std, IMAGENET_STD),
        ):
            if _nearly(values, wanted) and not np.allclose(values, wanted[::-1], atol=1e-3):
                yield Complaint(
                    f"input {name!r}, {label}",
                    f"{values} is nearly the ImageNet {label} {wanted}: a slip of the pen?",
                    f"use {wanted}, the numbers that the network was trained with",
                )
        reverse = np.allclose(rule.mean, IMAGENET_MEAN[::-1], atol=1e-3)
        if reverse and rule.channels == "rgb":
            yield Complaint(
                f"input {name!r}, mean",
                "the ImageNet mean stands in BGR order, the channels are RGB",
                "reverse mean and std, or say channels: bgr",
            )
        yield from _inside(subject, name)


def _inside(subject: Subject, name: str) -> Iterator[Complaint]:
    for step in subject.first_steps(name):
        if step.numbers.size != 3:
            continue
        values = tuple(float(x) for x in step.numbers)
        wanted = IMAGENET_MEAN if step.op in {"Sub", "Add"} else IMAGENET_STD
        if _nearly(values, wanted):
            yield Complaint(
                f"node {step.node.name!r}",
                f"{values} is nearly the ImageNet numbers {wanted}: a slip of the pen?",
                "export the model again with the numbers it was trained with",
            )


def missing_crop(subject: Subject) -> Iterator[Complaint]:
    """A preset whose system crops the centre, with pre-processing that does not."""
    score = subject.contract.score
    if score is None:
        return
    known = PRESETS.get(score.method, {}).get(score.preset)
    if known is None or known.preprocess.crop is None:
        return
    for name, rule in subject.contract.inputs.items():
        if rule.crop is None and not _cropped_inside(subject, name):
            yield Complaint(
                f"input {name!r}",
                f"preset {score.preset!r} resizes and then crops the centre; the contract only "
                "resizes, so objects have another size than in training",
                "add resize_to (256 for 224) and crop, or fit again with what is deployed",
            )


def _cropped_inside(subject: Subject, name: str) -> bool:
    value = next((v for v in subject.model.graph.inputs if v.name == name), None)
    nodes = () if value is None else value.consumers()
    return any(n.op_type in {"Slice", "CenterCropPad"} for n in nodes)


def resized_twice(subject: Subject) -> Iterator[Complaint]:
    """The contract resizes the image, and the graph resizes it once more."""
    for name in subject.contract.inputs:
        value = next((v for v in subject.model.graph.inputs if v.name == name), None)
        for node in () if value is None else value.consumers():
            before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
            if node.op_type == "Resize" and before is not None and before != after:
                yield Complaint(
                    f"input {name!r}",
                    f"images are resized to {before[-2:]} before the graph and to "
                    f"{(after or ())[-2:]} in it (node {node.name!r})",
                    "fix the input to the size that the graph works at (--input-shape)",
                )


def reconstruction_scale(subject: Subject) -> Iterator[Complaint]:
    """A network that reconstructs 0…1 (it ends in a sigmoid) gets normalised pixels."""
    for name, rule in subject.contract.inputs.items():
        value = next((v for v in subject.model.graph.inputs if v.name == name), None)
        if value is None or not _normalises(rule):
            continue
        shape = static_shape(value)
        ends = [v for n in subject.heads("SquaredErrorMap") for v in n.inputs if v is not None]
        for end in [*ends, *subject.model.graph.outputs]:
            node = end.producer()
            if node is not None and node.op_type == "Sigmoid" and static_shape(end) == shape:
                yield Complaint(
                    f"input {name!r}",
                    "the network reconstructs pixels in 0…1, the contract feeds normalised ones: "
                    "the error is not the one it was trained on",
                    "use mean 0 and std 1 (--preprocess unit)",
                )
                break


RULES = {
    "double-normalisation": double_normalisation,
    "double-scaling": double_scaling,
    "wrong-constants": wrong_constants,
    "missing-crop": missing_crop,
    "resized-twice": resized_twice,
    "reconstruction-scale": reconstruction_scale,
}
