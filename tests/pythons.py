"""Finds the CPythons from 3.11 to 3.14 here; runs the unit tests on each or on those in between, or names one."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
PLACES = (
    (Path.home() / ".pyenv" / "versions", "{version}.*/bin/python3"),
    (Path.home() / ".local" / "share" / "uv" / "python", "cpython-{version}.*/bin/python3"),
)
PROBE = "import sys, ensurepip; print('%s.%s' % sys.version_info[:2], sys.implementation.name)"


def find(version):
    """Give a CPython of this version that starts and can make environments; None if there is none."""
    places = [found for folder, name in PLACES for found in sorted(folder.glob(name.format(version=version)))]
    for candidate in [*reversed(places), shutil.which(f"python{version}")]:
        if candidate:
            done = subprocess.run([candidate, "-c", PROBE], check=False, capture_output=True, text=True)
            if done.stdout.split() == [version, "cpython"]:
                return candidate
    return None


def run(version, python):
    """Run the unit tests in an environment of their own; says how it went."""
    folder = ROOT / ".cache" / f"python-{version}"
    uv = [Path(sys.executable).parent / "uv"]
    install = ["pip", "install", "--quiet", "--constraints", "requirements.lock", "--python", folder]
    subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", python, folder], check=True, cwd=ROOT)
    subprocess.run([*uv, *install, "--group", "unit", "--editable", "."], check=True, cwd=ROOT)
    print(f"Python {version}, {python}:", flush=True)
    words = ["-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "tests/unit"]
    return subprocess.run([folder / "bin" / "python", *words], check=False, cwd=ROOT).returncode


def main():
    found = {version: find(version) for version in VERSIONS}
    here = [python for python in found.values() if python]
    if not here:
        sys.exit(f"no CPython of {', '.join(VERSIONS)} was found on the PATH, by pyenv or by uv")
    for word, index in (("--oldest", 0), ("--newest", -1)):
        if word in sys.argv:
            print(here[index])
            return 0
    if "--between" in sys.argv:
        versions = [version for version, python in found.items() if python]
        for end in {versions[0], versions[-1]}:
            found.pop(end)
    failed = [version for version, python in found.items() if python and run(version, python)]
    print(f"not on this machine: {', '.join(version for version, python in found.items() if not python) or 'none'}")
    print(f"failed on: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
