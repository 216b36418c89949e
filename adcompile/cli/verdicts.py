"""The numbers of a verification, as the lines that a person reads after a build."""

from __future__ import annotations

from collections.abc import Mapping


def in_words(results: Mapping[str, float | str]) -> list[str]:
    """One line per output, one for all parts by themselves, then what else was measured.

    Keys are ``SUBJECT METRIC``, as the manifest keeps them.
    """
    subjects: dict[str, dict[str, float | str]] = {}
    for name, value in sorted(results.items()):
        subject, _, metric = name.rpartition(" ")
        if subject:
            subjects.setdefault(subject, {})[metric] = value
    lines = [
        f"{subject}: {_words(metrics)}"
        for subject, metrics in subjects.items()
        if subject.startswith("output ")
    ]
    alone = {
        subject.removeprefix("part ").removesuffix(" isolated"): _ratio(metrics["snr_db"])
        for subject, metrics in subjects.items()
        if subject.startswith("part ") and subject.endswith(" isolated")
    }
    if alone:
        lines.append("parts alone: " + ", ".join(f"{k} {v}" for k, v in alone.items()))
    for subject, metrics in subjects.items():
        if not subject.startswith(("output ", "part ")):
            lines.append(f"{subject}: " + ", ".join(f"{k} {v}" for k, v in metrics.items()))
    return lines


def _words(metrics: Mapping[str, float | str]) -> str:
    found: list[str] = []
    if "matched" in metrics:
        share = float(metrics["matched"])
        found.append(f"{share:.0%} of {float(metrics.get('reference', 0)):.0f} detections matched")
    if "snr_db" in metrics:
        found.append(_ratio(metrics["snr_db"]))
    if float(metrics.get("max_abs", 0.0)) > 0.0:
        found.append(f"largest difference {float(metrics['max_abs']):.3g}")
    if float(metrics.get("decision_flips", 0.0)) > 0.0:
        found.append(f"{float(metrics['decision_flips']):.0f} decisions changed")
    return ", ".join(found) or "equal"


def _ratio(decibel: float | str) -> str:
    from adcompile.check.compare import SNR_CAP

    return "equal" if float(decibel) >= SNR_CAP else f"SNR {float(decibel):.1f} dB"
