"""What messages may call, and how the app's code is loaded."""

import sys
import textwrap

import pytest

from jobrunner.app import catalog
from jobrunner.app.loading import load_app, load_around
from jobrunner.app.opening import open_app
from jobrunner.errors import AppError, AppImportFailed, AroundBroken, BadParams, NoSuchModule, UnknownMethod


@pytest.fixture
def app(tmp_path, monkeypatch):
    """Write the app's files; its modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_public_functions_of_the_module_and_its_submodules_are_jobs(app):
    app(
        {
            "shop/__init__.py": "def ping(): pass",
            "shop/orders.py": "def ship(id): pass\nasync def bill(id): pass",
            "shop/deep/__init__.py": "",
            "shop/deep/mail.py": "def send(): pass",
        }
    )
    assert sorted(catalog.load("shop").jobs) == ["deep.mail.send", "orders.bill", "orders.ship", "ping"]


def test_what_a_message_may_never_reach(app):
    app(
        {
            "decorators.py": "import functools\ndef plain(f):\n    def inner(): pass\n    return inner\n"
            "def wrapped(f):\n    @functools.wraps(f)\n    def inner(*a, **k): return f(*a, **k)\n    return inner",
            "hostile.py": """
            import os
            from os import system
            from decorators import plain, wrapped
            from json import dumps as public_name
            def good(): pass
            def _private(): pass
            class Thing:
                def method(self): pass
            thing = Thing()
            number = 7
            def generator(): yield 1
            async def stream(): yield 1
            @plain
            def without_wraps(): pass
            @wrapped
            def with_wraps(a, b=2): pass
        """,
        }
    )
    found = catalog.load("hostile")
    assert sorted(found.jobs) == ["good", "with_wraps"]
    assert str(found.jobs["with_wraps"].signature) == "(a, b=2)"
    for name in (
        "os.system",
        "system",
        "__class__",
        "_private",
        "Thing",
        "Thing.method",
        "thing.method",
        "number",
        "public_name",
        "generator",
        "stream",
        "without_wraps",
        "__builtins__",
        "good.__call__",
        "os",
        "wrapped",
    ):
        with pytest.raises(UnknownMethod):
            found.find(name)


def test_a_function_has_one_name_where_it_is_defined(app):
    app({"shop/__init__.py": "from shop.orders import ship", "shop/orders.py": "def ship(): pass"})
    assert list(catalog.load("shop").jobs) == ["orders.ship"]


def test_dunder_all_is_honoured(app):
    app({"listed.py": "__all__ = ['a']\ndef a(): pass\ndef b(): pass"})
    assert list(catalog.load("listed").jobs) == ["a"]


def test_private_submodules_and_main_are_not_even_imported(app):
    app(
        {
            "shop/__init__.py": "def ping(): pass",
            "shop/_hidden.py": "raise SystemExit",
            "shop/__main__.py": "raise SystemExit",
        }
    )
    assert list(catalog.load("shop").jobs) == ["ping"]


def test_unknown_names_get_near_misses_or_the_reason(app):
    app({"shop.py": "def ship_order(): pass\ndef all(): yield 1"})
    found = catalog.load("shop")
    with pytest.raises(UnknownMethod, match="near misses: ship_order"):
        found.find("ship_orders")
    with pytest.raises(UnknownMethod, match="left out: it is a generator"):
        found.find("all")
    with pytest.raises(UnknownMethod, match="it is 'ship_order', without the module in front"):
        found.find("shop.ship_order")
    many = catalog.Catalog(module="m", jobs={f"job{n}": None for n in range(12)}, left_out={})
    with pytest.raises(UnknownMethod, match="it has job0, .*, job9 and 2 more"):
        many.find("zzz")
    with pytest.raises(UnknownMethod, match="near misses: job1"):
        many.find("m.jbo1")
    with pytest.raises(UnknownMethod, match="'zzz' in module 'shop'; it has ship_order"):
        found.find("zzz")


def test_no_such_module_and_a_module_that_fails_are_told_apart(app):
    app(
        {
            "broken.py": "import no_such_package",
            "sick.py": "1 / 0",
            "quits.py": "raise SystemExit(3)",
            "pack/__init__.py": "",
            "pack/bad.py": "import pack.missing",
            "circle/__init__.py": "",
            "circle/jobs.py": "from circle import web\ndef ship(): pass",
            "circle/web.py": "import circle.jobs\ncircle.jobs.ship",
        }
    )
    with pytest.raises(AppImportFailed, match=r"import each other\. .*enqueue\(\"orders\.ship\", \.\.\.\)"):
        catalog.load("circle")
    with pytest.raises(NoSuchModule, match="no module 'nothing' in .*--module.*--app-dir"):
        catalog.load("nothing")
    with pytest.raises(NoSuchModule):
        catalog.load("nothing.at.all")
    with pytest.raises(AppImportFailed, match=r"(?s)'broken' was found and failed.*No module named 'no_such_package'"):
        catalog.load("broken")
    with pytest.raises(AppImportFailed, match=r"(?s)sick\.py.*1 / 0.*ZeroDivisionError"):
        catalog.load("sick")
    with pytest.raises(AppImportFailed, match="SystemExit"):
        catalog.load("quits")
    with pytest.raises(AppImportFailed, match=r"pack\.missing"):
        catalog.load("pack")


@pytest.mark.parametrize(
    ("params", "fits"),
    [
        ({"a": 1}, True),
        ([1], True),
        ([1, 2], True),
        ({"a": 1, "b": 2}, True),
        ({}, False),
        ([], False),
        ({"a": 1, "c": 3}, False),
        ([1, 2, 3], False),
        ({"b": 2}, False),
    ],
)
def test_params_are_fitted_before_the_function_is_touched(params, fits):
    def job(a, b=2):
        raise AssertionError

    entry = catalog.Job.of("job", job)
    if fits:
        entry.bind(params)
    else:
        with pytest.raises(BadParams, match=r"job\(a, b=2\)"):
            entry.bind(params)


def test_an_app_with_its_own_jobrunner_is_told_so(tmp_path):
    (tmp_path / "jobrunner").mkdir()
    with pytest.raises(AppError, match=r"own top-level 'jobrunner'.*Rename"):
        open_app(tmp_path)


def test_a_folder_without_init_that_another_module_hides_is_refused(app, tmp_path):
    app({"shop/orders.py": "def ship(): pass\n", "elsewhere/shop/__init__.py": "def theirs(): pass\n"})
    sys.path.append(str(tmp_path / "elsewhere"))
    with pytest.raises(AppError, match=r"shop has no __init__\.py, .*elsewhere.*: add an empty one"):
        load_app(app_dir=tmp_path, module="shop")


@pytest.mark.parametrize(
    ("files", "module", "job"),
    [
        ({"shop/orders.py": ""}, "shop", "orders.ship"),
        ({"shop.py": "", "shop/picture.txt": "", "shop/orders.py": "1/0"}, "shop", "ship"),
        (
            {"shop/manage.py": "1/0", "elsewhere/shop/__init__.py": "", "elsewhere/shop/jobs.py": ""},
            "shop.jobs",
            "ship",
        ),
        ({"shop/picture.txt": "", "elsewhere/shop.py": ""}, "shop", "ship"),
    ],
    ids=["nothing hides it", "a file of its name", "a project around the package", "no code in it"],
)
def test_other_folders_without_init_are_in_nobodys_way(app, tmp_path, files, module, job):
    app({name: text or "def ship(): pass\n" for name, text in files.items()})
    sys.path.append(str(tmp_path / "elsewhere"))
    assert list(load_app(app_dir=tmp_path, module=module).jobs) == [job]


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        ("def scope(): yield", "decorate it with contextlib.contextmanager"),
        ("async def scope(): pass", "it is async"),
        ("async def scope(): yield", "decorate it with contextlib.asynccontextmanager"),
        ("def scope(request): pass", "it is called without arguments"),
    ],
)
def test_what_cannot_be_entered_around_a_job_is_refused_at_the_start(app, code, cure):
    app({"web.py": code})
    with pytest.raises(AppError, match=f"--around 'web:scope'.*{cure}"):
        load_around("web:scope")


WEB = """
from contextlib import contextmanager
class App:
    @contextmanager
    def app_context(self): yield "entered"
    def wrong(self): return 5
app = App()
name = 'x'
"""


def test_around_is_loaded_by_module_and_name(app):
    app({"web.py": WEB})
    with load_around("web:app.app_context").on_thread() as value:
        assert value == "entered"
    with pytest.raises(AroundBroken, match=r"--around 'web:app.wrong' gave 5, which is no context manager"):
        load_around("web:app.wrong").on_thread()
    for reference, says in [
        ("web:nope", "has no attribute 'nope'"),
        ("web:name", "not callable"),
    ]:
        with pytest.raises(AppError, match=says):
            load_around(reference)


def test_a_decorator_may_give_what_the_decorated_wants(app):
    code = """
        import contextlib, functools
        def with_settings(function):
            return functools.wraps(function)(lambda: function("settings"))
        @with_settings
        @contextlib.contextmanager
        def scope(settings): yield settings
    """
    app({"web.py": code})
    with load_around("web:scope").on_thread() as settings:
        assert settings == "settings"


def test_a_proxy_that_is_not_bound_is_an_error_and_not_a_traceback(app):
    proxy = """
        class Proxy:
            @property
            def app_context(self): raise RuntimeError("no app")
        app = Proxy()
    """
    app({"web.py": proxy})
    with pytest.raises(AppError, match="--around 'web:app.app_context': no app"):
        load_around("web:app.app_context")


def test_around_of_a_module_that_is_not_there_names_the_flag(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AppError, match="--around 'nope:x': no module 'nope'"):
        load_around("nope:x")


def test_params_that_are_neither_names_nor_positions_are_refused():
    with pytest.raises(BadParams, match="params is 'Ada', not a dict"):
        catalog.Job.of("greet", lambda name: None).bind("Ada")
