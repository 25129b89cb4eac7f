"""docs/from-celery.md, done as it says: a small app on a real Celery and a real jobrunner beside each other."""

import os
import subprocess
import sys
from collections import Counter

import pages
import pytest
from servers import ROOT, counts, wait_for
from workers import PROGRAM

PAGE = (ROOT / "docs" / "from-celery.md").read_text()
#: The shop's own code, which stays as it is: what is done is noted, and by whom.
SHOP = """
import sys
from pathlib import Path
HERE = Path(__file__).parent
class CourierBusy(Exception):
    retry_after = 1
def note(what, order):
    with (HERE / "notes.txt").open("a") as notes:
        notes.write(f"{what} {order} {'celery' if 'celery.bin' in sys.modules else 'jobrunner'}\\n")
def charge(order): note("charged", order)
def ship(order):
    if order % 5 == 0 and not (HERE / f"busy-{order}").exists():
        (HERE / f"busy-{order}").touch()
        raise CourierBusy
    note("shipped", order)
def thank(order): note("thanked", order)
def report(): note("reported", 0)
"""
#: A broker that needs no server: kombu's own, of files.
CONFIG = """
from pathlib import Path
HERE = Path(__file__).parent
broker_url = "filesystem://"
folder = HERE / "broker"
folder.mkdir(exist_ok=True)
broker_transport_options = dict.fromkeys(("data_folder_in", "data_folder_out", "control_folder"), str(folder))
worker_hijack_root_logger = False
"""
BUY = "import sys, buying\nfor order in range(int(sys.argv[1]), int(sys.argv[2])): buying.buy(order)"


@pytest.fixture
def shop(app):
    (app.folder / "jobs.py").unlink()
    for name, text in {**pages.files(PAGE), "shop.py": SHOP, "celeryconfig.py": CONFIG, "jobs/__init__.py": ""}.items():
        app.write(name, text.replace("600", "1"))
    (crons,) = pages.blocks(PAGE, "toml")
    app.write("jobs/crons.toml", crons)
    return app


def buy(shop, share, *orders):
    env = {**os.environ, "JOBRUNNER_QUEUE_URL": shop.queue_url, "JOBRUNNER_SHARE": str(share)}
    words = [sys.executable, "-c", BUY, *map(str, orders)]
    subprocess.run(words, check=True, cwd=shop.folder, env=env)


@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_a_shop_moves_from_celery_order_by_order(shop):
    """Share 0, some, all: each order is charged, shipped and thanked for once, by the one that its share says."""
    words = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool", "solo", "--loglevel", "warning"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    celery = subprocess.Popen([*words, *quiet], cwd=shop.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        shop.consume(env={"JOBRUNNER_QUEUE_URL": shop.queue_url})
        for share, *orders in ((0, 0, 10), (50, 10, 30), (100, 30, 40)):
            buy(shop, share, *orders)
        wait_for(lambda: len(shop.notes()) >= 120, what=shop.notes)
        wait_for(lambda: counts(shop.queue_url) == (0, 0, 0))
    finally:
        celery.terminate()
        said = celery.communicate(timeout=60)[0].decode()
    done = Counter(line.split()[1] for line in shop.notes())
    assert set(done.values()) == {3}, said
    notes = [(int(order), engine) for _, order, engine in map(str.split, shop.notes())]
    by = dict(notes)
    assert all(by[order] == engine for order, engine in notes), "an order stays where it is"
    assert {by[order] for order in range(10)} == {"celery"}
    assert {by[order] for order in range(10, 30)} == {"celery", "jobrunner"}
    assert {by[order] for order in range(30, 40)} == {"jobrunner"}


@pytest.mark.parametrize("server_url", ["moto"], indirect=True)
def test_its_cron_means_what_beats_did(shop):
    command = [*PROGRAM, "crons", "list", "--app-dir", shop.folder]
    listed = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "at 02:30 every day, UTC" in listed.stdout
