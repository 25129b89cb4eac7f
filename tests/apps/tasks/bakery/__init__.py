"""A Django project that has nothing but tasks."""

try:
    from django.tasks import task
except ModuleNotFoundError:
    from django_tasks import task

__all__ = ["task"]
