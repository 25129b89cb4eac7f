"""A module of the package."""

from bakery import task


@task
def stack(count):
    return count
