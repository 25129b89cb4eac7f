"""Makes the tables, before the web server and the worker start."""

import os

import django
from django.core.management import call_command

os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()
call_command("migrate", run_syncdb=True)
