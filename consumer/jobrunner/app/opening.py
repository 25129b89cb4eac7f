"""Opens the app's folder and imports the app's modules; main thread, once all of ours is imported."""

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from jobrunner.errors import AppError, AppImportFailed, NoSuchModule

#: The package that this file is part of.
OURS = Path(__file__).resolve().parent.parent


def open_app(app_dir: Path) -> None:
    """Put the app's directory first on `sys.path`; raises AppError if the app's names hide ours.

    Call it when all of ours is imported: from here on the app's files win over any of the same name.
    """
    for theirs in (app_dir / "jobrunner", app_dir / "jobrunner.py"):
        if theirs.exists() and theirs.resolve() != OURS:
            raise AppError(
                f"the app has its own top-level 'jobrunner' ({theirs}), which is our library's name: inside the "
                "worker `import jobrunner` would get ours. Rename the app's, or move it into a package"
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
        raise import_failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise import_failed(name, error) from error


def check_origin(module: ModuleType, folder: Path) -> None:
    """Raise AppError if Python took a module from elsewhere for this folder of the app."""
    # A folder without __init__.py comes after every module of its name, wherever on sys.path that is.
    is_hidden = not (folder / "__init__.py").exists() and any(folder.glob("*.py"))
    file = getattr(module, "__file__", None)
    if is_hidden and file and Path(file).parent != folder.parent:
        raise AppError(f"{folder} has no __init__.py, so Python takes {file} for it: add an empty one")


def check_not_patched() -> None:
    """Raise AppError if the app has patched the standard library: our threads and timers count on the real one."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent and gevent.is_module_patched("threading"):
        raise AppError(
            "the app patches the standard library with gevent, and then a job that computes stops every lease: "
            "patch in the web server's own start (gunicorn --worker-class gevent does), not in what jobs import"
        )


def import_failed(name: str, error: BaseException) -> AppImportFailed:
    """Make an error of what an import raised, with the app's own traceback."""
    # The importer's own frames say nothing about the app.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = "".join(traceback.format_list(frames[1:]) + traceback.format_exception_only(error))
    return AppImportFailed(f"module {name!r} was found and failed to import:\n{own}{_cure(error)}")


def _cure(error: BaseException) -> str:
    if type(error).__name__ in ("AppRegistryNotReady", "ImproperlyConfigured"):
        return "A Django project is set up by --django and its settings, such as --django shop.settings\n"
    if not any(words in str(error) for words in ("partially initialized module", "circular import")):
        return ""
    return (
        "The web app and its jobs import each other. Let one of them not: in the web app name the job by text, "
        'enqueue("orders.ship", ...), or import it inside the function that enqueues it\n'
    )
