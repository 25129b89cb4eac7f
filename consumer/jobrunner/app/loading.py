"""Loads all that a worker calls: the jobs' module, Django's tasks, and what is entered around each; main thread."""

from pathlib import Path

from jobrunner.app import around as entered
from jobrunner.app import catalog
from jobrunner.app.around import Around
from jobrunner.app.catalog import Catalog
from jobrunner.app.opening import check_origin, import_module, open_app
from jobrunner.errors import NoSuchModule
from jobrunner.settings import MODULE


def load_app(*, app_dir: Path, module: str, django: str | None = None) -> Catalog:
    """Open the app and load its jobs; with Django's settings named, also its tasks, without which no module need be.

    Raises AppError. Call it when all of ours is imported.
    """
    app_dir = app_dir.resolve()
    open_app(app_dir)
    if django:
        return _with_tasks(app_dir, module, django)
    return _plain(app_dir, module)


def load_around(reference: str | None, *, django: str | None = None) -> Around | None:
    """Give what is entered around each job: Django's connections first; None if nothing is. Raises AppError."""
    own = entered.named(reference) if reference else None
    if not django:
        return own
    from jobrunner.app import tasks

    return tasks.Connections(own)


def _plain(app_dir: Path, module: str) -> Catalog:
    check_origin(import_module(module), app_dir / module.replace(".", "/"))
    return catalog.load(module)


def _with_tasks(app_dir: Path, module: str, django: str) -> Catalog:
    from jobrunner.app import tasks

    tasks.set_up(django)
    of_apps, broken = tasks.of_installed_apps()
    jobs, left_out = {}, {}
    try:
        if not tasks.is_app(module):  # whose views are not meant to be called by messages
            plain, found = _plain(app_dir, module), tasks.of_modules(module)
            left_out = {name: why for name, why in plain.left_out.items() if f"{module}.{name}" not in found}
            jobs = {name: tasks.with_connections(job) for name, job in plain.jobs.items()} | found
    except NoSuchModule:
        if module != MODULE:  # somebody has named it
            raise
    return Catalog(module=module, jobs=jobs | of_apps, left_out=left_out | broken, django=django)
