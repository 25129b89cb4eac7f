"""Tasks of each kind, and a function that is none."""

from bakery import task

NOTES = []


@task
def bake(loaves, *, kind="rye"):
    NOTES.append(helper(loaves, kind))


@task(queue_name="slow")
async def rise(minutes):
    NOTES.append(minutes)


@task(takes_context=True)
def count(context, *words):
    NOTES.append((context.attempt, words, context.task_result))
    if "burn" in words:
        raise ValueError("burnt")
    return len(words)


@task
def promise(value):
    async def keep():
        NOTES.append(value)

    return keep()


@task
def crumbs():
    yield 1


@task
def mixed(first, *rest, flag=False):
    NOTES.append((first, rest, flag))


@task
def placed(x, /, y=1):
    NOTES.append((x, y))


slow_bake = bake.using(queue_name="slow")


def helper(loaves, kind):
    return f"{loaves} {kind}"
