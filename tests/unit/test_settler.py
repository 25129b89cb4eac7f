"""Deletes, releases and renewals, each called where its thread would."""

import threading

import pytest
from fakes import BUSY, GONE, FakeQueue

from jobrunner.errors import RequestRefused
from jobrunner.message import Delivery
from jobrunner.outcome import DONE, Outcome
from jobrunner.queue.outage import Outage
from jobrunner.queue.paced import PacedQueue
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import State
from jobrunner.worker.settler import Settler
from jobrunner.worker.visibility import Visibility


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def house(log, metrics):
    """A settler and a line for visibility around a fake queue, without their threads."""

    class House:
        clock = Clock()
        queue = FakeQueue()

        def __init__(self):
            self.hand = Hand(threads=8, visibility_seconds=30, attempts_max=5, clock=self.clock)
            self.paced = PacedQueue(queue=self.queue, outage=Outage(log=log, clock=self.clock), metrics=metrics)
            common = {"queue": self.paced, "hand": self.hand, "metrics": metrics, "log": log}
            self.visibility = Visibility(**common)
            self.settler = Settler(visibility=self.visibility, **common)

        def waiting(self, *handles, attempt=1, **more):
            deliveries = [
                Delivery(
                    **{"message_id": f"m-{handle}", "receipt_handle": handle, "body": "{}", "sent_at": 0, **more},
                    attempt=attempt,
                )
                for handle in handles
            ]
            return self.hand.received(deliveries, asked=0, held_since=self.clock(), receive_seconds=0.01)

        def running(self, *handles, **how):
            leases = self.waiting(*handles, **how)
            for lease in leases:
                self.hand.start(lease)
            return leases

        def done(self, *handles):
            leases = self.running(*handles)
            for lease in leases:
                self.settler.settle(lease, DONE)
            return leases

        def send(self):
            """Send what is in the line for visibility, as its thread would, once."""
            batch = list(self.visibility.line._line)
            self.visibility.line._line.clear()
            again = self.visibility._send(batch)
            self.visibility.line._line.extend(again)

        def renew(self):
            self.visibility.renew_due()
            self.send()

    return House()


def test_done_jobs_are_deleted_in_one_request(house):
    leases = house.done("a", "b")
    assert house.settler._delete(leases) == []
    assert (house.queue.deleted, house.queue.requests, len(house.hand)) == (["a", "b"], 1, 0)


def test_a_failed_delete_is_tried_again_and_stays_renewed_meanwhile(house, events):
    (lease,) = house.done("a")
    house.queue.down = True
    assert house.settler._delete([lease]) == [lease]
    house.clock.now += 11
    assert house.settler.seconds_to_hold() > 0
    assert house.hand.due() == [lease]
    house.queue.down = False
    assert house.settler._delete([lease]) == []
    assert house.queue.deleted == ["a"]
    assert len(events.named("sqs.outage")) == len(events.named("sqs.recovered")) == 1


def test_what_sqs_refuses_within_a_good_answer_is_tried_again(house, events):
    leases = house.done("a", "b", "c")
    house.queue.refuse = {"b": BUSY}
    for _ in range(3):
        assert house.settler._delete(leases[1:2]) == [leases[1]]
    assert house.settler._delete(leases) == [leases[1]]
    assert house.queue.deleted == ["a", "c"]
    assert [line["event"] for line in events] == ["sqs.outage"], "one outage, however often it is tried"


def test_a_handle_that_is_gone_while_leased_means_deleted_by_a_try_whose_answer_was_lost(house, events):
    (lease,) = house.done("a")
    house.queue.refuse = {"a": GONE}
    assert house.settler._delete([lease]) == []
    assert len(house.hand) == 0
    assert events == []


def test_a_renewal_that_crosses_the_delete_says_nothing(house, events):
    """The delete went through and its answer was lost: SQS refuses the renewal, and nothing will run again."""
    (lease,) = house.done("a")
    house.clock.now += 11
    house.queue.refuse = {"a": GONE}
    house.renew()
    assert house.settler._delete([lease]) == []
    assert events == []


def test_a_done_job_whose_lease_ran_out_is_deleted_all_the_same_and_said_to_maybe_run_again(house, events):
    (lease,) = house.done("a")
    house.clock.now += 31
    house.queue.down = True
    assert house.settler._delete([lease]) == [lease]
    house.queue.down = False
    assert house.settler._delete([lease]) == []
    assert house.queue.deleted == ["a"]
    assert "may run again" in events.one("job.lease_lost")["effect"]


def test_a_release_is_behind_the_renewal_under_way_and_ends_renewal(house):
    (lease,) = house.running("a")
    house.clock.now += 11
    house.visibility.renew_due()
    house.settler.settle(lease, Outcome("failed", 7))
    house.send()
    assert house.queue.released == [("a", 7)], "what is given up needs no renewal"
    assert (house.hand.due(), len(house.hand)) == ([], 0)


def test_a_release_that_fails_is_tried_while_it_would_hide_the_message(house, events):
    (lease,) = house.running("a")
    house.settler.settle(lease, Outcome("failed", 7))
    house.queue.down = True
    house.send()
    house.clock.now += 6
    house.queue.down = False
    house.send()
    assert house.queue.released == [("a", 7)]
    assert events.named("job.not_released") == []


def test_a_release_that_goes_on_failing_is_left_to_the_lease(house, events):
    (lease,) = house.running("a")
    house.settler.settle(lease, Outcome("failed", 7))
    house.queue.down = True
    house.send()
    house.clock.now += 8
    house.send()
    assert events.one("job.not_released")["message_ids"] == ["m-a"]
    assert len(house.hand) == 0


def test_a_hand_back_that_fails_is_not_tried_again_since_another_may_have_it(house, events):
    house.waiting("a")
    house.clock.now += 2
    house.settler.hand_back_unstarted()
    house.queue.down = True
    house.send()
    assert events.one("job.not_released")["message_count"] == 1
    assert len(house.visibility.line) == 0


def test_what_was_handed_back_is_not_deleted_when_its_job_ends_after_all(house):
    (lease,) = house.running("a")
    house.settler.release(house.hand.give_up_all(State.RUNNING)[0], Outcome("handed_back", 0))
    house.settler.settle(lease, DONE)
    assert (len(house.settler.deletes), len(house.visibility.line)) == (0, 1)
    assert house.hand.busy() == 0, "counted once"


def test_a_job_that_a_worker_starts_meanwhile_is_not_handed_back(house):
    """Whatever thread comes first: what is handed back is given up in the state in which it was seen."""
    for _ in range(200):
        leases = house.waiting("a", "b", "c", "d")
        house.clock.now += 2
        started = []
        worker = threading.Thread(target=lambda: started.extend(filter(house.hand.start, leases)))  # noqa: B023
        worker.start()
        house.settler.hand_back_unstarted()
        worker.join()
        given_up = [lease for lease in leases if lease.state is State.RELEASING]
        assert len(given_up) + len(started) == 4
        assert house.hand.busy() == len(started)
        house.send()
        house.hand.confirm(started)


def test_what_waits_on_its_last_attempt_is_kept_and_renewed(house):
    """Handed back unstarted it would be a dead letter that never ran."""
    (last,) = house.waiting("a", attempt=5)
    house.waiting("b", attempt=4)
    house.clock.now += 11
    house.settler.hand_back_unstarted()
    house.renew()
    assert sorted(house.queue.released) == [("a", 30), ("b", 0)]
    assert last.state is State.WAITING


def test_leases_are_renewed_by_the_ten(house):
    house.running(*"abcdefghijkl")
    house.clock.now += 11
    threading.Thread(target=house.visibility.line.loop, daemon=True).start()
    house.visibility.renew_due()
    house.visibility.renew_due()
    house.visibility.line.hurry()
    house.visibility.line.wait_until_empty(deadline=10**9)
    assert house.queue.requests == 2, "each once, though it was due twice"
    assert {seconds for _, seconds in house.queue.released} == {30}
    house.visibility.renew_due()
    assert len(house.visibility.line) == 0, "they are due again at the next third"


def test_a_refused_renewal_is_a_lost_lease_said_once(house, events):
    (lease,) = house.running("a")
    house.queue.refuse = {"a": GONE}
    house.clock.now += 11
    house.renew()
    house.renew()
    assert lease.lost
    assert events.one("lease.lost")["message_id"] == "m-a"
    house.settler.settle(lease, DONE)
    house.settler._delete([lease])
    assert events.one("job.lease_lost")["message_id"] == "m-a"


def test_a_renewal_that_fails_is_tried_again_and_loses_nothing(house):
    (lease,) = house.running("a")
    house.clock.now += 11
    house.queue.down = True
    house.renew()
    house.clock.now += 2
    house.queue.down = False
    house.renew()
    assert house.queue.released == [("a", 30)]
    assert (lease.state, lease.lost) == (State.RUNNING, False)


def test_nothing_is_received_while_a_hundred_wait_for_their_requests(house):
    """All jobs failing: releases hold the receivers back as deletes do."""
    leases = house.running(*map(str, range(101)))
    assert house.settler.seconds_to_hold() == 0
    for lease in leases:
        house.settler.settle(lease, Outcome("failed", 5))
    assert house.settler.seconds_to_hold() > 0


def test_add_and_loop_send_what_settle_puts_in_line(house):
    leases = house.running("a", "b", "c")
    for lease in leases[:2]:
        house.settler.settle(lease, DONE)
    house.settler.settle(leases[2], Outcome("failed", 5))
    for line in (house.settler.deletes, house.visibility.line):
        threading.Thread(target=line.loop, daemon=True).start()
    house.settler.drain(deadline=10**9)
    assert house.queue.deleted == ["a", "b"]
    assert house.queue.released == [("c", 5)]


def test_renewals_that_failed_do_not_keep_an_outage_open_when_nothing_is_left_to_renew(house, events):
    (lease,) = house.done("a")
    house.clock.now += 11
    house.queue.down = True
    house.renew()
    house.settler._delete([lease])
    house.queue.down = False
    house.settler._delete([lease])
    house.visibility.renew_due()
    assert len(events.named("sqs.outage")) == len(events.named("sqs.recovered")) == 1


def test_a_server_that_renews_nothing_is_no_outage_but_a_lost_lease_said_once(house, events):
    house.running("a")
    house.clock.now += 11
    house.queue.error = RequestRefused("UnsupportedOperation: no batch visibility here")
    house.queue.down = True
    for _ in range(3):
        house.renew()
        house.clock.now += 11
    assert [line["event"] for line in events] == ["lease.lost"]


def test_what_comes_again_while_it_is_deleted_is_deleted_by_its_newest_handle(house):
    """With the old one SQS may say yes and not do it."""
    (lease,) = house.done("a")
    real = house.queue.delete

    def delete(handles):
        again = Delivery(message_id="m-a", receipt_handle="newer", body="{}", attempt=2, sent_at=0)
        house.hand.received([again], asked=0, held_since=house.clock(), receive_seconds=0.01)
        return real(handles)

    house.queue.delete = delete
    assert house.settler._delete([lease]) == [lease]
    house.queue.delete = real
    assert house.settler._delete([lease]) == []
    assert house.queue.deleted == ["a", "newer"]


GIVEN_UP = Outcome("failed", 5, reason="retry_seconds is None")


def test_what_wants_no_other_attempt_is_among_the_dead_letters_before_it_is_deleted(house, events):
    (lease,) = house.running("a")
    house.settler.settle(lease, GIVEN_UP)
    assert house.queue.buried == [("m-a", GIVEN_UP.reason)]
    assert house.queue.deleted == []
    house.settler._delete(list(house.settler.deletes._line))
    assert house.queue.deleted == ["a"]
    assert events.one("job.given_up")["reason"] == GIVEN_UP.reason


def test_what_cannot_be_put_there_is_tried_again(house, events):
    (lease,) = house.running("a")
    house.queue.down = True
    house.settler.settle(lease, GIVEN_UP)
    house.queue.down = False
    house.send()
    assert house.queue.released == [("a", 5)]
    assert (events.one("job.not_given_up")["retry_seconds"], house.queue.deleted, len(house.hand)) == (5, [], 0)


def test_what_was_handed_back_meanwhile_is_not_put_there_as_well(house, events):
    """The stop gives up what runs while the job's end is on its way."""
    (lease,) = house.running("a")
    house.hand.give_up_all(State.RUNNING)
    house.settler.settle(lease, GIVEN_UP)
    assert (house.queue.buried, events.named("job.given_up")) == ([], [])


def test_a_last_attempt_that_a_stop_leaves_unrun_has_a_copy_before_it_is_deleted(house, events):
    leases = house.waiting("a", attempt=5, body='{"method": "m"}', group="g")
    leases += house.waiting("b", attempt=5, body='{"method": "m", "id": "mine"}')
    house.settler.send_anew(house.hand.give_up_all(State.WAITING))
    assert house.queue.sent == [('{"method":"m","id":"m-a"}', "g"), ('{"method":"m","id":"mine"}', None)]
    assert (house.queue.requests, house.queue.deleted) == (1, [])
    assert house.settler._delete(list(house.settler.deletes._line)) == []
    assert (house.queue.deleted, len(house.hand)) == (["a", "b"], 0)
    assert [line["job_id"] for line in events.named("job.sent_anew")] == ["m-a", "mine"]


@pytest.mark.parametrize("down", [True, False])
def test_a_copy_that_cannot_be_sent_leaves_its_message_to_the_dead_letters(house, events, down):
    """A body that is no call belongs there, and has no line."""
    house.waiting("a", attempt=5, body='{"method": "m"}')
    house.waiting("b", attempt=5)
    house.queue.refuse = {'{"method":"m","id":"m-a"}': BUSY}
    house.queue.down = down
    house.settler.send_anew(house.hand.give_up_all(State.WAITING))
    house.queue.down = False
    house.send()
    assert sorted(house.queue.released) == [("a", 0), ("b", 0)]
    assert (house.queue.sent, len(house.settler.deletes)) == ([], 0)
    assert events.one("job.not_sent_anew")["error"] == ("down" if down else "InternalError: busy")


def test_copies_are_cut_into_requests_that_sqs_takes(house):
    body = '{"method": "m", "params": {"text": "%s"}}' % ("x" * 400_000)
    house.waiting(*"abc", attempt=5, body=body)
    house.settler.send_anew(house.hand.give_up_all(State.WAITING))
    assert (len(house.queue.sent), house.queue.requests) == (3, 2)
