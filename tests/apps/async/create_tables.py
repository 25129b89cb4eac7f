"""Makes the tables, before the web server and the worker start."""

import os

from sqlalchemy import create_engine
from web.models import Base

Base.metadata.create_all(create_engine(os.environ["DATABASE_URL"]))
