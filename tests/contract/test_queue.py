"""The same cases on the embedded SQS, a real ElasticMQ and a MiniStack: what we believe of SQS, each must show."""

import json
import uuid

import pytest
from servers import wait_for

from jobrunner.errors import QueueError, QueueNotFound, RequestRefused
from jobrunner.message import BODY_BYTES_MAX, Call, encode
from jobrunner.queue import requests as sqs
from jobrunner.queue.endpoint import Endpoint

pytestmark = pytest.mark.timeout(60)

#: Where they differ from each other; what is not listed here is the same. The table of docs/local.md has these rows.
DIFFERENCES = {
    "deleting with a handle that is gone": {"moto": "accepted", "elasticmq": "refused", "ministack": "refused"},
    "a renewal beyond SQS's 12 hours": {"moto": "refused", "elasticmq": "accepted", "ministack": "accepted"},
}


@pytest.fixture
def queue_url(server_url, make_queue):
    return make_queue(server_url)


@pytest.fixture(params=["lean", "botocore"])
def queue(queue_url, request, monkeypatch):
    """By both ways of asking: our own for what a worker asks all the time, and botocore's client."""
    if request.param == "botocore":
        monkeypatch.setattr(Endpoint, "lean_client", Endpoint.client)
    found, _ = sqs.connect(queue_url, wait_seconds=1, visibility_timeout_seconds=None, connections=4)
    return found


@pytest.fixture
def send(queue):
    def send(*methods, **options):
        bodies = [encode(Call(method=method)) for method in methods]
        assert queue.send(bodies, **{"delay_seconds": 0, "group": None, **options}) == {}
        return bodies

    return send


def receive(queue, most=10, visibility=30):
    return queue.receive(most=most, wait_seconds=1, visibility_timeout_seconds=visibility)


def receive_one(queue, seconds=10, visibility=30):
    (delivery,) = wait_for(lambda: receive(queue, most=1, visibility=visibility), seconds, "a message")
    return delivery


def test_the_queue_says_its_settings(queue_url):
    _, attributes = sqs.connect(queue_url, wait_seconds=1, visibility_timeout_seconds=None, connections=1)
    assert (attributes.visibility_timeout_seconds, attributes.attempts_max) == (30, 10)
    assert attributes.redrive["deadLetterTargetArn"].endswith("-dead")


def test_a_message_comes_with_its_attempt_and_its_time(queue, send):
    (body,) = send("a")
    delivery = receive_one(queue)
    assert (delivery.body, delivery.attempt) == (body, 1)
    assert 1_700_000_000 < delivery.sent_at < 4_000_000_000
    assert receive(queue) == []


def test_batches_of_ten_go_in_and_out(queue, send):
    send(*[f"job{n}" for n in range(10)])
    got = {}
    while len(got) < 10:
        got |= {delivery.message_id: delivery for delivery in receive(queue)}
    assert queue.delete([delivery.receipt_handle for delivery in got.values()]) == {}
    assert receive(queue) == []


def test_hidden_for_zero_seconds_is_visible_at_once_and_counted(queue, send):
    send("a")
    first = receive_one(queue)
    assert queue.change_visibility([(first.receipt_handle, 0)]) == {}
    again = receive_one(queue)
    assert (again.message_id, again.attempt) == (first.message_id, 2)


def test_a_backoff_hides_and_then_shows(queue, send):
    send("a")
    queue.change_visibility([(receive_one(queue).receipt_handle, 2)])
    assert receive(queue) == []
    assert receive_one(queue).attempt == 2


def test_a_lease_that_runs_out_shows_the_message_again(queue, send):
    send("a")
    receive_one(queue, visibility=1)
    assert receive_one(queue).attempt == 2


def test_a_renewal_keeps_it_hidden(queue, send):
    send("a")
    queue.change_visibility([(receive_one(queue, visibility=1).receipt_handle, 30)])
    assert receive(queue) + receive(queue) == []


def test_after_the_last_attempt_it_is_a_dead_letter(server_url, make_queue, client):
    url = make_queue(server_url, attempts_max=2)
    queue, _ = sqs.connect(url, wait_seconds=1, visibility_timeout_seconds=None, connections=1)
    queue.send([encode(Call(method="a"))], delay_seconds=0, group=None)
    for attempt in (1, 2):
        delivery = receive_one(queue)
        assert delivery.attempt == attempt
        queue.change_visibility([(delivery.receipt_handle, 0)])
    assert receive(queue) == []
    dead = wait_for(lambda: client(server_url).receive_message(QueueUrl=f"{url}-dead").get("Messages"))
    assert json.loads(dead[0]["Body"]) == {"method": "a"}


def test_what_a_job_gives_up_is_among_the_dead_letters_with_its_reason(queue_url, queue, send, client):
    (body,) = send("a", group="tenant-7")
    delivery = receive_one(queue)
    queue.bury(delivery, "it will never do")
    dead = {"QueueUrl": f"{queue_url}-dead", "MessageAttributeNames": ["All"]}
    (letter,) = wait_for(lambda: client(queue_url.rsplit("/", 2)[0]).receive_message(**dead).get("Messages"))
    said = {name: given["StringValue"] for name, given in letter["MessageAttributes"].items()}
    assert letter["Body"] == body
    assert said == {
        sqs.REASON: "it will never do",
        sqs.SOURCE: queue_url.rpartition("/")[2],
        sqs.WAS: delivery.message_id,
    }


def test_without_dead_letters_there_is_nowhere_to_give_a_job_up_to(server_url, make_queue):
    url = make_queue(server_url, attempts_max=None)
    queue, attributes = sqs.connect(url, wait_seconds=1, visibility_timeout_seconds=None, connections=1)
    queue.send([encode(Call(method="a"))], delay_seconds=0, group=None)
    with pytest.raises(RequestRefused, match="has no dead-letter queue"):
        queue.bury(receive_one(queue), "it will never do")
    assert attributes.attempts_max is None


def test_copies_go_out_each_with_its_own_group(queue):
    bodies = [encode(Call(method=method)) for method in "ab"]
    assert queue.send_anew([(bodies[0], "tenant-7"), (bodies[1], None)]) == {}
    found = {}
    while len(found) < 2:
        found |= {each.body: each.attempt for each in receive(queue)}
    assert found == dict.fromkeys(bodies, 1)


def test_a_delay_hides_at_first(queue, send):
    send("a", delay_seconds=2)
    assert receive(queue) == []
    assert receive_one(queue).attempt == 1


def test_a_group_is_taken_on_a_standard_queue(queue, send):
    send("a", group="tenant-7")
    assert receive_one(queue)


def test_one_bad_handle_does_not_fail_its_batch(queue, send):
    send("a")
    handle = receive_one(queue).receipt_handle
    refusals = queue.delete([handle, "no-such-handle"])
    assert set(refusals) <= {1}
    assert refusals == {} or refusals[1].lease_gone
    assert receive(queue) == []


def test_a_handle_that_is_gone(queue, send, kind):
    send("a")
    handle = receive_one(queue).receipt_handle
    queue.delete([handle])
    refusals = queue.delete([handle])
    assert ("refused" if refusals else "accepted") == DIFFERENCES["deleting with a handle that is gone"][kind]
    assert all(refusal.lease_gone for refusal in refusals.values())
    refusals = queue.change_visibility([(handle, 30)])
    assert refusals[0].lease_gone


def test_the_twelve_hour_limit(queue, send, kind):
    send("a")
    handle = receive_one(queue).receipt_handle
    try:
        refusals = queue.change_visibility([(handle, 43_200)])
    except RequestRefused as error:
        assert "beyond the limit" in str(error)
        refusals = "the whole request"
    assert ("refused" if refusals else "accepted") == DIFFERENCES["a renewal beyond SQS's 12 hours"][kind]


def test_the_largest_body_goes_through(queue):
    frame = len(encode(Call(method="a", params={"x": ""})))
    body = encode(Call(method="a", params={"x": "y" * (BODY_BYTES_MAX - frame)}))
    assert len(body) == BODY_BYTES_MAX
    assert queue.send([body], delay_seconds=0, group=None) == {}
    assert receive_one(queue).body == body


def test_a_missing_queue_is_named(server_url):
    with pytest.raises(QueueNotFound, match="sqs get-queue-url"):
        sqs.connect(
            f"{server_url}/000000000000/none-{uuid.uuid4().hex}",
            wait_seconds=1,
            visibility_timeout_seconds=None,
            connections=1,
        )


def test_a_server_that_is_not_there_is_a_passing_fault(queue_url):
    with pytest.raises(QueueError, match="did not answer") as caught:
        sqs.connect("http://127.0.0.1:1/0/q", wait_seconds=1, visibility_timeout_seconds=None, connections=1)
    assert type(caught.value) is QueueError
