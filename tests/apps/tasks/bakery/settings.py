"""As few settings as the tests of tasks take."""

import os

import django

SECRET_KEY = "test"
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS = ["bread", "cakes", *([] if django.VERSION >= (6,) else ["django_tasks"])]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BAKERY_DATABASE"]}}
LOGGING_CONFIG = None
TASKS = {
    "default": {
        "BACKEND": "jobrunner.django.SQSBackend",
        "QUEUES": {"slow": "https://sqs.eu-west-1.amazonaws.com/123456789012/slow"},
        "OPTIONS": {"queue_url": "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs"},
    }
}
