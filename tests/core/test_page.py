"""The bundle's page."""

from __future__ import annotations

from html.parser import HTMLParser

from adcompile.contract import Contract
from adcompile.manifest import (
    ActionRecord,
    Manifest,
    ModelRecord,
    PartRecord,
    RewriteRecord,
    TensorSpec,
)
from adcompile.page import page


def part(name: str, placement: str, read: list[str], made: list[str]) -> PartRecord:
    def spec(n: str) -> TensorSpec:
        return TensorSpec(name=n, dtype="float32", shape=("N", 4, 4))

    return PartRecord(
        name=name,
        placement=placement,
        role=name,
        executor="npu" if placement == "device" else "cpu",
        precision="fp32",
        inputs=tuple(map(spec, read)),
        outputs=tuple(map(spec, made)),
        files={},
        nodes=3,
        macs=1000,
    )


def manifest(name: str = "m") -> Manifest:
    return Manifest(
        adcompile="0",
        model=ModelRecord(name=name, sha256="0", opset=17, inputs=(), outputs=()),
        contract=Contract(),
        target="npu:stx",
        parts=(
            part("host_0", "host", ["x"], ["a"]),
            part("backbone", "device", ["a"], ["b"]),
            part("host_1", "host", ["b", "a"], ["c"]),
        ),
        rewrites=(RewriteRecord(rule="pool", node="n", exactness="approximate", error=0.25),),
        actions=(ActionRecord(name="plan", part="backbone", tool="t", argv=("t", "<x>")),),
        results={"boxes": 0.5},
    )


class Balance(HTMLParser):
    """Counts open elements, and notes text seen."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in {"meta", "br", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.seen += data


def test_everything_worth_knowing_is_on_it() -> None:
    """Parts, edges, actions, approximate rewrites with their error, and results are shown."""
    parser = Balance()
    text = page(manifest())
    parser.feed(text)
    assert parser.open == []
    for expected in ("backbone", "host_1", "pool", "0.25", "pending", "boxes", "npu:stx"):
        assert expected in parser.seen
    assert text.count('class="edge"') == 3


def test_names_from_a_model_are_text() -> None:
    """A hostile model name cannot become markup."""
    assert "<script>" not in page(manifest("<script>alert(1)</script>"))


def test_same_manifest_same_bytes() -> None:
    """The page has no clock and no random part."""
    assert page(manifest()) == page(manifest())
