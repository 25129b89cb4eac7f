"""Tasks where Django does not look for them."""

from bakery import task


@task
def store():
    return None


@task
def forget():
    return None
