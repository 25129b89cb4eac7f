"""The closed table of method names and functions, built once in the main thread, read by all."""

import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from consumer.errors import AppError, AppImportFailed, BadParams, NoSuchModule, UnknownMethod

Params = dict[str, Any] | list[Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A function of the app that messages may name."""

    method: str
    function: Callable[..., Any]
    signature: inspect.Signature

    @classmethod
    def of(cls, method: str, function: Callable[..., Any]) -> "Job":
        """Make the entry of a function."""
        return cls(method, function, inspect.signature(function))

    def bind(self, params: Params) -> inspect.BoundArguments:
        """Fit params to the signature; raises BadParams before the function is touched."""
        if not isinstance(params, dict | list):
            raise BadParams(f"{self.method}{self.signature}: params is {params!r}, not a dict (by name) or a list")
        try:
            return self.signature.bind(*params) if isinstance(params, list) else self.signature.bind(**params)
        except TypeError as error:
            raise BadParams(f"{self.method}{self.signature}: {error}") from None


class Catalog:
    """What may be called, and what may not and why."""

    def __init__(self, *, module: str, jobs: Mapping[str, Job], left_out: Mapping[str, str]) -> None:
        self.module = module
        self.jobs = jobs
        self.left_out = left_out

    def find(self, method: str) -> Job:
        """Look a name up; raises UnknownMethod with near misses. Nothing is ever imported here."""
        job = self.jobs.get(method)
        if job is None:
            raise UnknownMethod(f"no job {method!r} in module {self.module!r}; {self._hint(method)}")
        return job

    def _hint(self, method: str) -> str:
        if method in self.left_out:
            return f"it is left out: {self.left_out[method]}"
        near = get_close_matches(method, self.jobs, n=3)
        return f"near misses: {', '.join(near)}" if near else f"it has {len(self.jobs)} jobs, none of a like name"


def load(module_name: str) -> Catalog:
    """Import the app's module with all its submodules; raises NoSuchModule or AppImportFailed."""
    jobs: dict[str, Job] = {}
    left_out: dict[str, str] = {}
    for module in _modules(module_name):
        prefix = module.__name__[len(module_name) + 1 :]
        for name, value in sorted(_public(module).items()):
            method = f"{prefix}.{name}" if prefix else name
            reason = _reason_to_leave_out(value, module)
            if reason is None:
                jobs[method] = Job.of(method, value)
            elif isinstance(value, FunctionType) and not _is_imported(value, module):
                left_out[method] = reason
    return Catalog(module=module_name, jobs=jobs, left_out=left_out)


def load_app(app_dir: Path, module_name: str) -> Catalog:
    """Open the app and load its jobs; raises AppError. Call it when all of ours is imported."""
    app_dir = app_dir.resolve()
    open_app(app_dir)
    _refuse_another(import_module(module_name), app_dir / module_name.replace(".", "/"))
    return load(module_name)


def open_app(app_dir: Path) -> None:
    """Put the app's directory first on `sys.path`; raises AppError if the app's names hide ours.

    Call it when all of ours is imported: from here on the app's files win over any of the same name.
    """
    for name in ("consumer", "jobrunner"):
        spec = importlib.util.find_spec(name)
        ours = Path(spec.origin).parent if spec and spec.origin else None
        for theirs in (app_dir / name, app_dir / f"{name}.py"):
            if theirs.exists() and theirs.resolve() != ours:
                raise AppError(
                    f"the app has its own top-level {name!r} ({theirs}), and jobrunner's library has that name: "
                    f"inside the worker `import {name}` would get ours. Rename the app's, or move it into a package"
                )
    if str(app_dir) not in sys.path[:1]:
        sys.path.insert(0, str(app_dir))


def import_module(name: str) -> ModuleType:
    """Import a module of the app; raises NoSuchModule, or AppImportFailed with the app's own traceback."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # `import a.b` fails with the name "a" when a is missing: all else is the app's own broken import.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise NoSuchModule(
                f"no module {name!r} in {sys.path[0] or '.'}: name it with --module, or its folder with --app-dir"
            ) from None
        raise _import_failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error


def _refuse_another(module: ModuleType, folder: Path) -> None:
    # A folder without __init__.py comes after every module of its name, wherever on sys.path that is.
    is_hidden = any(folder.glob("*.py")) and not (folder / "__init__.py").exists()
    file = getattr(module, "__file__", None)
    if is_hidden and file and Path(file).parent != folder.parent:
        raise AppError(f"{folder} has no __init__.py, so Python takes {file} for it: add an empty one")


def _modules(name: str) -> Iterator[ModuleType]:
    module = import_module(name)
    yield module
    for child in sorted(found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []))):
        if not child.startswith("_"):
            yield from _modules(f"{name}.{child}")


def _import_failed(name: str, error: BaseException) -> AppImportFailed:
    # The importer's own frames say nothing about the app.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = "".join(traceback.format_list(frames[1:]) + traceback.format_exception_only(error))
    return AppImportFailed(f"module {name!r} was found and failed to import:\n{own}")


def _public(module: ModuleType) -> dict[str, Any]:
    named = getattr(module, "__all__", None)
    members = vars(module)
    if named is not None:
        return {name: members[name] for name in named if name in members and not name.startswith("_")}
    return {name: value for name, value in members.items() if not name.startswith("_")}


def _reason_to_leave_out(value: object, module: ModuleType) -> str | None:
    if not isinstance(value, FunctionType):
        return "it is not a function"
    if value.__module__ != module.__name__:
        return f"it is defined in {value.__module__}, not here: by a decorator without functools.wraps?"
    if inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value):
        return "it is a generator: calling it runs nothing"
    return None


def _is_imported(function: FunctionType, module: ModuleType) -> bool:
    """Tell a plain import, which nobody takes for a job, from what a decorator made elsewhere."""
    return function.__module__ != module.__name__ and "<locals>" not in function.__qualname__
