"""Stands in for `sqs.Queue` where a test is about who calls it, and when."""

from jobrunner.errors import QueueError
from jobrunner.queue.requests import Refusal

GONE = Refusal("ReceiptHandleIsInvalid", sender_fault=True, message="gone")
BUSY = Refusal("InternalError", sender_fault=False, message="busy")


class FakeQueue:
    """Records requests; `down` makes them fail, `refuse` maps a handle to its refusal."""

    def __init__(self):
        self.down = False
        self.error = QueueError("down")
        self.refuse = {}
        self.deleted = []
        self.released = []
        self.requests = 0
        self.buried = []
        self.sent = []

    def _answer(self, handles):
        self.requests += 1
        if self.down:
            raise self.error
        return {index: self.refuse[handle] for index, handle in enumerate(handles) if handle in self.refuse}

    def delete(self, handles):
        refusals = self._answer(handles)
        self.deleted += [handle for index, handle in enumerate(handles) if index not in refusals]
        return refusals

    def send_anew(self, copies):
        refusals = self._answer([body for body, _ in copies])
        self.sent += [copy for index, copy in enumerate(copies) if index not in refusals]
        return refusals

    def bury(self, delivery, reason):
        if self.down:
            raise self.error
        self.buried.append((delivery.message_id, reason))

    def change_visibility(self, changes):
        changes = list(changes)
        refusals = self._answer([handle for handle, _ in changes])
        self.released += [change for index, change in enumerate(changes) if index not in refusals]
        return refusals
