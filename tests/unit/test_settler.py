"""Deletes, releases and renewals, each called where its thread would."""

import threading

import pytest
from fakes import BUSY, GONE, FakeQueue

from jobrunner.message import Delivery
from jobrunner.outcome import DONE, Outcome
from jobrunner.queue.outage import Outage
from jobrunner.worker.keeper import Renewal
from jobrunner.worker.lease import Leases, State
from jobrunner.worker.settler import Settler


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def house(log, metrics):
    """A settler and a renewal around a fake queue, without their threads."""

    class House:
        clock = Clock()
        queue = FakeQueue()
        leases = Leases(visibility_seconds=30, clock=clock)
        outage = Outage(log=log, clock=clock)
        renewing = threading.Lock()
        alive = 0

        def __init__(self):
            self.settler = Settler(
                queue=self.queue,
                leases=self.leases,
                renewing=self.renewing,
                running=lambda: 0,
                outage=self.outage,
                metrics=metrics,
                log=log,
            )
            self.renewal = Renewal(
                queue=self.queue,
                leases=self.leases,
                renewing=self.renewing,
                alive=self.count,
                outage=self.outage,
                metrics=metrics,
                log=log,
            )

        def count(self):
            self.alive += 1

        def running(self, *handles):
            deliveries = [
                Delivery(message_id=f"m-{handle}", receipt_handle=handle, body="{}", attempt=1, sent_at=0)
                for handle in handles
            ]
            leases = self.leases.admit(deliveries, self.clock())
            for lease in leases:
                self.leases.start(lease)
            return leases

    return House()


def test_done_jobs_are_deleted_in_one_request(house):
    leases = house.running("a", "b")
    for lease in leases:
        house.settler.settle(lease, DONE)
    assert house.settler._delete(leases) == []
    assert (house.queue.deleted, house.queue.requests, len(house.leases)) == (["a", "b"], 1, 0)


def test_a_failed_delete_is_tried_again_and_stays_renewed_meanwhile(house, events):
    (lease,) = house.running("a")
    house.settler.settle(lease, DONE)
    house.queue.down = True
    assert house.settler._delete([lease]) == [lease]
    house.clock.now += 11
    assert house.leases.due() == [lease]
    assert house.settler.is_stuck()
    house.queue.down = False
    assert house.settler._delete([lease]) == []
    assert house.queue.deleted == ["a"]
    assert len(events.named("sqs.outage")) == len(events.named("sqs.recovered")) == 1


def test_what_sqs_refuses_within_a_good_answer_is_tried_again(house):
    leases = house.running("a", "b", "c")
    for lease in leases:
        house.settler.settle(lease, DONE)
    house.queue.refuse = {"b": BUSY}
    assert house.settler._delete(leases) == [leases[1]]
    assert house.queue.deleted == ["a", "c"]


def test_a_handle_that_is_gone_while_leased_means_deleted_by_a_try_whose_answer_was_lost(house, events):
    (lease,) = house.running("a")
    house.settler.settle(lease, DONE)
    house.queue.refuse = {"a": GONE}
    assert house.settler._delete([lease]) == []
    assert len(house.leases) == 0
    assert events == []


def test_a_done_job_whose_lease_ran_out_is_said_to_run_again(house, events):
    (lease,) = house.running("a")
    house.settler.settle(lease, DONE)
    house.clock.now += 31
    assert house.settler._delete([lease]) == []
    assert house.queue.requests == 0
    assert "run again" in events.one("job.lease_lost")["effect"]


def test_a_release_leaves_renewal_first_and_waits_for_one_under_way(house):
    (lease,) = house.running("a")
    house.settler.settle(lease, Outcome("failed", 7))
    house.clock.now += 20
    assert house.leases.due() == []
    house.renewing.acquire()
    thread = threading.Thread(target=house.settler._release, args=([(lease, 7)],))
    thread.start()
    thread.join(0.05)
    assert house.queue.released == []
    house.renewing.release()
    thread.join(5)
    assert house.queue.released == [("a", 7)]


def test_a_release_that_fails_is_left_to_the_lease(house, events):
    (lease,) = house.running("a")
    house.settler.settle(lease, Outcome("failed", 7))
    house.queue.down = True
    assert house.settler._release([(lease, 7)]) == []
    assert events.one("job.not_released")["count"] == 1


def test_what_was_handed_back_is_not_deleted_when_its_job_ends_after_all(house):
    (lease,) = house.running("a")
    house.settler.settle(lease, Outcome("handed_back", 0))
    house.settler.settle(lease, DONE)
    assert len(house.settler.deletes) == 0
    assert len(house.settler.releases) == 1


def test_leases_are_renewed_by_the_ten_and_the_switch_hears_of_each(house):
    house.running(*"abcdefghijkl")
    house.clock.now += 11
    house.renewal.renew()
    assert (house.queue.requests, house.alive) == (2, 2)
    assert {seconds for _, seconds in house.queue.released} == {30}
    house.renewal.renew()
    assert house.queue.requests == 2, "they are due again at the next third"


def test_a_refused_renewal_is_a_lost_lease_said_once(house, events):
    (lease,) = house.running("a")
    house.queue.refuse = {"a": GONE}
    house.clock.now += 11
    house.renewal.renew()
    house.renewal.renew()
    assert lease.lost
    assert events.one("lease.lost")["message_id"] == "m-a"
    house.settler.settle(lease, DONE)
    house.settler._delete([lease])
    assert events.one("job.lease_lost")["message_id"] == "m-a"


def test_a_renewal_that_fails_is_tried_again_and_loses_nothing(house):
    (lease,) = house.running("a")
    house.clock.now += 11
    house.queue.down = True
    house.renewal.renew()
    house.renewal.renew()
    assert house.queue.requests == 1, "paced"
    house.queue.down = False
    house.clock.now += 2
    house.renewal.renew()
    assert house.queue.released == [("a", 30)]
    assert lease.state is State.RUNNING
    assert not lease.lost


def test_add_and_loop_send_what_settle_puts_in_line(house):
    leases = house.running("a", "b", "c")
    for lease in leases[:2]:
        house.settler.settle(lease, DONE)
    house.settler.settle(leases[2], Outcome("failed", 5))
    for line in (house.settler.deletes, house.settler.releases):
        threading.Thread(target=line.loop, daemon=True).start()
    for line in (house.settler.deletes, house.settler.releases):
        line.hurry()
        line.wait_until_empty(deadline=10**9)
    assert house.queue.deleted == ["a", "b"]
    assert house.queue.released == [("c", 5)]


def test_renewals_that_failed_do_not_keep_an_outage_open_when_nothing_is_left_to_renew(house, events):
    (lease,) = house.running("a")
    house.settler.settle(lease, DONE)
    house.clock.now += 11
    house.queue.down = True
    house.renewal.renew()
    house.settler._delete([lease])
    house.queue.down = False
    house.settler._delete([lease])
    house.renewal.renew()
    assert len(events.named("sqs.outage")) == len(events.named("sqs.recovered")) == 1
