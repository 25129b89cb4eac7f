"""Jobs that need the app's context, and one that fails half way."""

from flask import current_app

from jobrunner import current_job
from web.app import Order, db


def ready():
    assert current_app.name == "web.app"


def fail_half_way(number):
    db.session.add(Order(number=number, shipped=True))
    db.session.flush()
    if current_job().attempt == 1:
        raise ValueError("half way")
    db.session.commit()
