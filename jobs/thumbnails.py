"""Thumbnails of uploaded pictures."""

from io import BytesIO

from PIL import Image, ImageOps

from jobs import _pictures, _records

SIZE = (320, 320)


def make(key):
    """Make the thumbnail of one upload. Running it again makes the same file again."""
    with _records.progress(key), Image.open(_records.folder("uploads") / key) as picture:
        _pictures.check_size(picture)
        picture.thumbnail(SIZE)  # first: each later step would copy the whole picture; a JPEG is never read whole
        small = ImageOps.exif_transpose(picture).convert("RGB")
        data = BytesIO()
        small.save(data, "PNG")
        _records.write(_records.folder("thumbnails") / f"{key}.png", data.getvalue())
