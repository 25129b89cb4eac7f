"""What the pages show: their blocks, and the files and commands in them."""

import re


def blocks(page, language):
    """Give the texts of a page's blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def files(page):
    """Give a page's Python files by name, as the first line of each says it."""
    named = [(re.match(r"# (\S+\.py)\n", text), text) for text in blocks(page, "python")]
    return {name[1]: text for name, text in named if name}


def told(page):
    """Give the flag with which a page's worker is started, as words; none where it needs none."""
    said = re.search(r"jobrunner consume (--(?:around|django) [^\s`]+)", page)
    return said[1].split() if said else []
