"""Small files that claim, or unfold into, very much."""

import gzip
import io
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
from PIL import Image


def png(width: int, height: int) -> bytes:
    """A PNG of zeros of any size, and at most some kB."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(min(height, 3_000))) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, (b"IHDR", b"IDAT", b"IEND"), (header, data, b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_text() -> bytes:
    """A small PNG whose compressed text unfolds to 100 MB."""
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "PNG")
    text = _chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(100 << 20), 9))
    return small.getvalue()[:33] + text + small.getvalue()[33:]


def jpeg(width: int, height: int) -> bytes:
    """A JPEG of 8 by 8 pixels whose header claims another size."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    data = out.getvalue()
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def gif(frames: int) -> bytes:
    """A GIF of so many frames."""
    out = io.BytesIO()
    first = Image.new("P", (16, 16))
    others = [Image.new("P", (16, 16), number % 250 + 1) for number in range(frames - 1)]
    first.save(out, "GIF", save_all=True, append_images=others, optimize=False)
    return out.getvalue()


def progressive_scans(size: int, scans: int) -> bytes:
    """A progressive JPEG that says its last scan again and again: each goes over all of a large picture."""
    out = io.BytesIO()
    Image.new("L", (size, size), 128).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def hdf5(count: int) -> bytes:
    """Descriptors of gzipped zeros: none of so many rows is in the file."""
    with tempfile.NamedTemporaryFile(suffix=".h5") as file:
        with h5py.File(file.name, "w") as out:
            for name in ("query", "reference"):
                out.create_dataset(name, (count, 256), np.float32, chunks=(4096, 256), compression="gzip")
                out.create_dataset(f"{name}_ids", (count,), "S7", chunks=(4096,), compression="gzip")
        return Path(file.name).read_bytes()


def zeros_in_zip(name: str, megabytes: int) -> bytes:
    """A zip with an entry of compressed zeros."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w", force_zip64=True) as entry:
        for _ in range(megabytes):
            entry.write(bytes(1 << 20))
    return out.getvalue()


def zeros_in_gzip(megabytes: int) -> bytes:
    """Gzipped zeros."""
    out = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=out, mtime=0) as file:
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    return out.getvalue()


def laughs(levels: int = 9) -> bytes:
    """YAML whose aliases unfold to 10 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


def merges(levels: int = 12) -> bytes:
    """The same by merge keys, which unfold as the text is read."""
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, levels)]
    return "\n".join(lines).encode()
