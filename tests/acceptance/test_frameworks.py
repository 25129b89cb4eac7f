"""docs/flask.md, django.md and async.md, done as they say: real frameworks and servers, a real PostgreSQL.

What a page leaves out of its app is in tests/apps.
"""

import psutil
import pytest
from servers import wait_for
from shops import SERVERS

pytestmark = pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
of_each = pytest.mark.parametrize("shop", SERVERS, indirect=True)


@of_each
def test_a_request_becomes_a_job_also_after_the_database_dropped_every_connection(shop):
    worker = shop.consume("--threads", 1)
    shop.order(1)
    worker.wait("job.done", method=shop.method)
    assert "worker" in shop.postgres.clients(), "it keeps its connection"
    shop.postgres.drop_connections()
    shop.order(2)
    worker.wait("job.done", 2, method=shop.method)
    assert shop.shipped() == [1, 2]
    assert not worker.named("job.failed")
    assert worker.stop()[0] == 0


@pytest.mark.parametrize("shop", ["flask"], indirect=True)
def test_what_a_failed_job_did_not_commit_is_rolled_back(shop):
    worker = shop.consume("--threads", 1)
    shop.app.enqueue(("more.fail_half_way", [1]))
    worker.wait("job.failed", method="more.fail_half_way")
    assert shop.shipped() == []
    worker.wait("job.done", method="more.fail_half_way")
    assert shop.shipped() == [1]


@pytest.mark.parametrize("shop", ["flask"], indirect=True)
def test_a_forked_web_server_shares_no_client(shop):
    def ports(process):
        """Give the local ports of a process's connections to SQS."""
        remote = int(shop.app.queue_url.split(":")[2].split("/")[0])
        return {line.laddr.port for line in process.net_connections() if line.raddr and line.raddr.port == remote}

    def own_ports():
        """Have both forked processes send; give the ports that each does not have from its parent."""
        shop.order(next(numbers))
        found = [ports(child) - ports(master) for child in master.children()]
        return len(found) == 2 and all(found) and found

    numbers = iter(range(2, 1_000))
    worker = shop.consume()
    worker.wait("job.done", method="more.ready")
    shop.order(1)
    master = psutil.Process(shop.web.pid)
    one, other = wait_for(own_ports, 60, "a connection of its own in each forked process")
    assert not one & other
    worker.wait("job.done", next(numbers) - 1, method=shop.method)


@pytest.mark.parametrize("shop", ["async"], indirect=True)
def test_async_jobs_share_one_engine(shop):
    worker = shop.consume("--async-jobs", 5)
    shop.app.enqueue(*[("more.ask", [])] * 40)
    worker.wait("job.done", 40)
    backends = {line["pid"] for line in worker.named("asked")}
    assert 1 < len(backends) <= 5, "the pool's five, used again and again"
