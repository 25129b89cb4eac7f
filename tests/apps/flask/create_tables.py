"""Makes the tables, before the web server and the worker start."""

from web.app import app, db

with app.app_context():
    db.create_all()
