"""The mailbox between the executor and the inference thread."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2lite_ros.tracker.mailbox import Command, Mailbox, MailboxClosedError


def waiting_frame(mailbox):
    """Look at the waiting frame without taking it."""
    seen = []
    mailbox.take_frame_if(lambda frame: seen.append(frame))
    return seen[0] if seen else None


def test_a_newer_frame_replaces_the_one_that_waits():
    mailbox = Mailbox()
    assert mailbox.put_frame("first") is None
    assert mailbox.put_frame("second") == "first"
    assert mailbox.next() == "second"
    assert mailbox.put_frame("third") is None


def test_commands_go_before_frames_and_keep_their_order():
    mailbox, seen = Mailbox(), []
    mailbox.put_frame("frame")
    futures = [mailbox.post(lambda number=number: seen.append(number) or number) for number in range(3)]
    for _ in range(3):
        item = mailbox.next()
        assert isinstance(item, Command)
        item.run()
    assert seen == [0, 1, 2]
    assert [future.result(0) for future in futures] == [0, 1, 2]
    assert mailbox.next() == "frame"


def test_an_exception_reaches_whoever_waits():
    mailbox = Mailbox()
    future = mailbox.post(lambda: 1 / 0)
    mailbox.next().run()
    with pytest.raises(ZeroDivisionError):
        future.result(0)


def test_frames_are_taken_only_when_wanted():
    mailbox = Mailbox()
    assert mailbox.take_frame_if(lambda _: True) is None
    mailbox.put_frame(7)
    assert mailbox.take_frame_if(lambda frame: frame == 8) is None
    assert waiting_frame(mailbox) == 7
    assert mailbox.take_frame_if(lambda frame: frame == 7) == 7
    assert waiting_frame(mailbox) is None


def test_closing_wakes_the_waiter_and_refuses_what_comes_after():
    mailbox, taken = Mailbox(), []
    waiter = threading.Thread(target=lambda: taken.append(mailbox.next()))
    waiter.start()
    assert mailbox.close() is None
    waiter.join(30)
    assert taken == [None]
    assert mailbox.put_frame("late") == "late"
    with pytest.raises(MailboxClosedError, match="not active"):
        mailbox.post(lambda: None).result(0)


def test_closing_hands_back_the_frame_and_fails_the_commands():
    mailbox = Mailbox()
    mailbox.put_frame("frame")
    future = mailbox.post(lambda: None)
    assert mailbox.close() == "frame"
    with pytest.raises(MailboxClosedError, match="deactivated"):
        future.result(0)


@given(st.lists(st.sampled_from(["put", "take"])))
def test_every_frame_is_processed_replaced_or_still_waiting(actions):
    mailbox, put, processed, replaced = Mailbox(), 0, [], []
    for action in actions:
        if action == "put":
            put += 1
            if (old := mailbox.put_frame(put)) is not None:
                replaced.append(old)
        elif waiting_frame(mailbox) is not None:
            processed.append(mailbox.next())
    waiting = [] if waiting_frame(mailbox) is None else [waiting_frame(mailbox)]
    assert sorted(processed + replaced + waiting) == list(range(1, put + 1))
    assert processed == sorted(processed)


class Holding:
    """A mailbox that holds frames back for ten minutes, and a thread that takes from it; enters the hold first."""

    def __init__(self, held="old"):
        self.entered, self.taken = threading.Event(), []
        self.mailbox = Mailbox(hold_s=self._hold_s)
        self.held = held
        self.mailbox.put_frame(held)
        self.taker = threading.Thread(target=lambda: self.taken.append(self.mailbox.next()), daemon=True)
        self.taker.start()
        assert self.entered.wait(30)

    def _hold_s(self, frame):
        if frame != self.held:
            return 0.0
        self.entered.set()
        return 600.0

    def result(self):
        self.taker.join(30)
        assert not self.taker.is_alive()
        return self.taken[0]


def test_a_frame_that_is_held_back_gives_way_to_its_successor():
    holding = Holding()
    assert holding.mailbox.put_frame("new") == "old"
    assert holding.result() == "new"


def test_a_command_does_not_wait_for_a_frame_that_is_held_back():
    holding = Holding()
    holding.mailbox.post(lambda: None)
    assert isinstance(holding.result(), Command)
    assert waiting_frame(holding.mailbox) == "old"


def test_closing_ends_a_hold_and_hands_back_the_frame():
    holding = Holding()
    assert holding.mailbox.close() == "old"
    assert holding.result() is None


def test_a_held_frame_that_somebody_else_took_is_not_missed():
    holding = Holding()
    assert holding.mailbox.take_frame_if(lambda frame: frame == "old") == "old"
    holding.mailbox.put_frame("new")
    assert holding.result() == "new"


def test_a_frame_whose_successor_does_not_come_is_taken_after_all():
    asked = []
    mailbox = Mailbox(hold_s=lambda frame: asked.append(frame) or 0.01)
    mailbox.put_frame("last")
    assert mailbox.next() == "last"
    assert asked == ["last"]


def test_what_is_awaited_can_be_refused_and_the_rest_keeps_its_place():
    mailbox = Mailbox()
    awaited = [mailbox.post(lambda: 1, awaited=True) for _ in range(2)]
    kept = mailbox.post(lambda: 2)
    mailbox.refuse_awaited(RuntimeError("it hangs"))
    for future in awaited:
        assert str(future.exception(0)) == "it hangs"
    mailbox.next().run()
    assert kept.result(0) == 2
