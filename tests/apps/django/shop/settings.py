"""As few settings as Django takes, and connections that are kept."""

import os

import django

SECRET_KEY = "test"
USE_TZ = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["shop", *([] if django.VERSION >= (6,) else ["django_tasks"])]
ROOT_URLCONF = "shop.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": os.environ["DATABASE_PORT"],
        "CONN_MAX_AGE": int(os.environ.get("CONN_MAX_AGE", "600")),
        "CONN_HEALTH_CHECKS": True,
    }
}
