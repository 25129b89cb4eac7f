"""What web and jobs agree on about pictures; a leading underscore keeps a module's functions from being jobs."""

#: A picture of a few kilobytes may unfold to gigabytes: its header says how large it is before it does.
PIXELS_MAX = 40_000_000


def check_size(picture):
    width, height = picture.size
    if width * height > PIXELS_MAX:
        raise ValueError(f"{width} x {height} pixels are too many")
