"""Damaged picture files for the tests of the C++ readers."""

from __future__ import annotations

import io
import zlib

from PIL import Image


def claims() -> dict[str, bytes]:
    """Files of a hundred bytes that claim 8000 x 8000 pixels."""
    side = (8000).to_bytes(4, "little")
    bmp = bytearray(b"BM" + bytes(8) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little"))
    bmp += side + side + b"\1\0\x18\0" + bytes(64)
    found = {"pnm": b"P6 8000 8000 255 " + bytes(80), "bmp": bytes(bmp)}
    for kind, options in (("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True})):
        stream = io.BytesIO()
        Image.new("L", (8, 8)).save(stream, kind, **options)
        data = bytearray(stream.getvalue())
        if kind == "PNG":
            data[16:24] = (8000).to_bytes(4, "big") * 2
            data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        else:
            frame = data.index(b"\xff\xc2" if options else b"\xff\xc0")
            data[frame + 5 : frame + 9] = (8000).to_bytes(2, "big") * 2
        found["-".join([kind.lower(), *options])] = bytes(data)
    return found
