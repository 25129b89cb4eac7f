"""The closed table of method names and functions, built once in the main thread, read by all."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import FunctionType, ModuleType
from typing import Any

from jobrunner.app.opening import import_module
from jobrunner.errors import BadParams, UnknownMethod

#: From Python 3.14 on annotations are evaluated when asked for, and may name what only type checkers import.
LAZILY: dict[str, Any] = (
    {"annotation_format": importlib.import_module("annotationlib").Format.FORWARDREF}
    if sys.version_info >= (3, 14)
    else {}
)
Params = dict[str, Any] | list[Any]
Kind = inspect.Parameter
#: Where Django, or its backport, has the class of its tasks: it is not imported to look for them.
DJANGO_TASKS = ("django.tasks.base", "django_tasks.base")
#: So many names are listed where none is like the one asked for.
NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Job:
    """A function of the app that messages may name."""

    method: str
    function: Callable[..., Any]
    signature: inspect.Signature
    #: It runs on the event loop and holds no thread.
    is_async: bool = False

    @classmethod
    def of(cls, method: str, function: Callable[..., Any]) -> "Job":
        """Make the entry of a function."""
        signature = inspect.signature(function, **LAZILY)
        return cls(method, function, signature, is_async=inspect.iscoroutinefunction(function))

    def takes_anything(self) -> bool:
        """Tell whether it is `(*args, **kwargs)`, which few jobs are."""
        kinds = [parameter.kind for parameter in self.signature.parameters.values()]
        return kinds == [Kind.VAR_POSITIONAL, Kind.VAR_KEYWORD]

    def bind(self, params: Params) -> inspect.BoundArguments:
        """Fit params to the signature; raises BadParams before the function is touched."""
        if not isinstance(params, dict | list):
            raise BadParams(f"{self.method}{self.signature}: params is {params!r}, not a dict (by name) or a list")
        try:
            return self.signature.bind(*params) if isinstance(params, list) else self.signature.bind(**params)
        except TypeError as error:
            raise misfit(self.method, self.signature, error, params if isinstance(params, dict) else ()) from None


def misfit(method: str, signature: inspect.Signature, error: TypeError, names: Iterable[str]) -> BadParams:
    """Say what does not fit, and which params by name are not known: a misspelt one says more than a missing one."""
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    by_name = (Kind.POSITIONAL_OR_KEYWORD, Kind.KEYWORD_ONLY)
    takes_any = Kind.VAR_KEYWORD in kinds.values()
    unknown = [] if takes_any else [str(name) for name in names if kinds.get(name) not in by_name]
    more = "".join(f"; unexpected {name!r}" for name in unknown if repr(name) not in str(error))
    return BadParams(f"{method}{signature}: {error}{more}")


class Catalog:
    """What may be called, and what may not and why."""

    def __init__(
        self, *, module: str, jobs: Mapping[str, Job], left_out: Mapping[str, str], django: str | None = None
    ) -> None:
        self.module = module
        self._place = f"module {module!r}" + (f" and the tasks of {django!r}" if django else "")
        self.jobs = jobs
        self.left_out = left_out

    def find(self, method: str) -> Job:
        """Look a name up; raises UnknownMethod with near misses. Nothing is ever imported here."""
        job = self.jobs.get(method)
        if job is None:
            raise UnknownMethod(f"no job {method!r} in {self._place}; {self._hint(method)}")
        return job

    def _hint(self, method: str) -> str:
        if method in self.left_out:
            return f"it is left out: {self.left_out[method]}"
        if (short := method.removeprefix(f"{self.module}.")) in self.jobs:
            return f"it is {short!r}, without the module in front"
        if near := get_close_matches(short, self.jobs, n=3):
            return f"near misses: {', '.join(near)}"
        if not self.jobs:
            return "it has no jobs at all: public functions that are defined there"
        more = f" and {len(self.jobs) - NAMES_SHOWN} more" if len(self.jobs) > NAMES_SHOWN else ""
        return f"it has {', '.join(list(self.jobs)[:NAMES_SHOWN])}{more}"


def load(module_name: str) -> Catalog:
    """Import the app's module with all its submodules; raises NoSuchModule or AppImportFailed."""
    jobs: dict[str, Job] = {}
    left_out: dict[str, str] = {}
    for module in modules(module_name):
        prefix = module.__name__[len(module_name) + 1 :]
        for name, value in sorted(public(module).items()):
            method = f"{prefix}.{name}" if prefix else name
            reason = reason_to_leave_out(value, module)
            if reason is None:
                jobs[method] = Job.of(method, value)
            elif _looks_like_a_job(value, module):
                left_out[method] = reason
    return Catalog(module=module_name, jobs=jobs, left_out=left_out)


def is_django_task(value: object) -> bool:
    """Tell whether a value is what Django's `@task` makes of a function."""
    return any(each.__name__ == "Task" and each.__module__ in DJANGO_TASKS for each in type(value).__mro__)


def modules(name: str) -> Iterator[ModuleType]:
    """Import a module and all public ones below it; raises NoSuchModule or AppImportFailed."""
    module = import_module(name)
    yield module
    for child in sorted(found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []))):
        if not child.startswith("_"):
            yield from modules(f"{name}.{child}")


def public(module: ModuleType) -> dict[str, Any]:
    """Give what a module offers: what its `__all__` names, else what has no underscore in front."""
    named = getattr(module, "__all__", None)
    members = vars(module)
    if named is not None:
        return {name: members[name] for name in named if name in members and not name.startswith("_")}
    return {name: value for name, value in members.items() if not name.startswith("_")}


def reason_to_leave_out(value: object, module: ModuleType) -> str | None:
    """Say why no message may call what a module offers; None for a job."""
    if is_django_task(value):
        return "it is one of Django's tasks: `consume --django SETTINGS` runs those, by their dotted paths"
    if not isinstance(value, FunctionType):
        return "it is not a function"
    if value.__module__ != module.__name__:
        return f"it is defined in {value.__module__}, not here: by a decorator without functools.wraps?"
    if inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value):
        return "it is a generator: calling it runs nothing"
    return None


def _looks_like_a_job(value: Any, module: ModuleType) -> bool:
    """Tell what somebody may take for a job, such as what a decorator made elsewhere, from a plain import."""
    function = value.func if is_django_task(value) else value
    is_here = getattr(function, "__module__", None) == module.__name__
    return isinstance(function, FunctionType) and (is_here or "<locals>" in function.__qualname__)
