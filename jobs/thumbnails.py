"""Thumbnails of uploaded pictures."""

from io import BytesIO

from PIL import Image, ImageOps

from jobs import _pictures, _records

SIZE = (320, 320)


def make(key):
    """Make the thumbnail of one upload. Running it again makes the same file again."""
    with _records.progress(key), Image.open(_records.folder("uploads") / key) as picture:
        _pictures.check_size(picture)
        picture.draft("RGB", SIZE)  # a JPEG is read at a fraction of its size, and never held whole
        small = ImageOps.exif_transpose(picture).convert("RGB")
        small.thumbnail(SIZE)
        data = BytesIO()
        small.save(data, "PNG")
        _records.write(_records.folder("thumbnails") / f"{key}.png", data.getvalue())
