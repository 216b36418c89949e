"""Say why bytes are not an ONNX protobuf: empty, cut off, nested too deep, or something else."""

from __future__ import annotations

NOT_ONNX = "its bytes do not follow the ONNX schema"
MAX_DEPTH = 100  # the limit of protobuf's own parser

_KNOWN = (
    (b"\x89PNG", "it is a PNG image"),
    (b"\xff\xd8\xff", "it is a JPEG image"),
    (b"PK\x03\x04", "it is a zip archive (a PyTorch checkpoint or TorchScript file?)"),
    (b"\x80\x02", "it is a Python pickle"),
    (b"\x80\x04", "it is a Python pickle"),
    (b"\x89HDF", "it is an HDF5 file (a Keras model?)"),
    (b"\x93NUMPY", "it is a NumPy array"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file itself"),
    (b"<!DOCTYPE", "it is a web page"),
    (b"<html", "it is a web page"),
    (b"ORTM", "it is an ORT format model"),
)

# message type -> field number -> type of the nested message; only what can nest without end
_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 11: "value", 12: "value", 13: "value"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {6: "graph", 11: "graph", 14: "type", 15: "type"},
    "value": {2: "type"},
    "type": {4: "sequence", 5: "map", 9: "optional"},
    "sequence": {1: "type"},
    "optional": {1: "type"},
    "map": {2: "type"},
}


def diagnose(data: bytes) -> str:
    """One sentence about what is wrong with *data*. Linear in its size."""
    if not data:
        return "the file is empty"
    for magic, text in _KNOWN:
        if data.startswith(magic):
            return text
    stack: list[tuple[str, int, int]] = [("model", 0, len(data))]  # message, position, end
    while stack:
        kind, position, end = stack.pop()
        if len(stack) >= MAX_DEPTH:
            return f"it is nested deeper than {MAX_DEPTH} levels"
        while position < end:
            field = _field(data, position, end)
            if isinstance(field, str):
                at_end = end == len(data)
                return field if kind == "model" or at_end else f"a nested {kind} is damaged"
            number, start, position = field
            if (nested := _NESTED.get(kind, {}).get(number)) and start < position:
                stack.append((kind, position, end))
                stack.append((nested, start, position))
                break
    return NOT_ONNX


def _varint(data: bytes, position: int, end: int) -> tuple[int, int] | None:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            return None
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    return None


def _field(data: bytes, position: int, end: int) -> tuple[int, int, int] | str:
    """Field number, start and end of its content; a sentence when the field is broken.

    Start equals end for everything that is not length-delimited.
    """
    key = _varint(data, position, end)
    if key is None:
        return "the file is cut off" if end - position < 10 else "its bytes are not protobuf"
    tag, position = key
    number, wire = tag >> 3, tag & 7
    if number == 0 or wire in (3, 4, 6, 7):
        return f"its bytes are not protobuf (position {position})"
    if wire == 0:
        value = _varint(data, position, end)
        return (number, value[1], value[1]) if value else "the file is cut off"
    if wire in (1, 5):
        stop = position + (8 if wire == 1 else 4)
        return (number, stop, stop) if stop <= end else "the file is cut off"
    length = _varint(data, position, end)
    if length is None:
        return "the file is cut off"
    size, start = length
    if start + size > end:
        return f"the file is cut off: {start + size - end:,} bytes are missing"
    return number, start, start + size
