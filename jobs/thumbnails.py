"""Thumbnails of uploaded pictures."""

from io import BytesIO

from PIL import Image, ImageOps

from jobs import _records

SIZE = (320, 320)
#: A picture of a few kilobytes may unfold to gigabytes: its header says how large it is before it does.
PIXELS_MAX = 40_000_000


def make(key):
    """Make the thumbnail of one upload. Running it again makes the same file again."""
    with _records.progress(key), Image.open(_records.folder("uploads") / key) as picture:
        check_size(picture)
        small = ImageOps.exif_transpose(picture).convert("RGB")
        small.thumbnail(SIZE)
        data = BytesIO()
        small.save(data, "PNG")
        _records.write(_records.folder("thumbnails") / f"{key}.png", data.getvalue())


def check_size(picture):
    width, height = picture.size
    if width * height > PIXELS_MAX:
        raise ValueError(f"{width} x {height} pixels are too many")
