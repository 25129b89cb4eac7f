"""A job that says which of the database's connections it had."""

import logging

from sqlalchemy import text

from web.app import sessions


async def ask():
    async with sessions() as session:
        pid = (await session.execute(text("SELECT pg_backend_pid() FROM pg_sleep(0.1)"))).scalar()
    logging.getLogger("shop").info("asked", extra={"pid": pid})
    return pid
