"""Signals as requests: noted in the block, as before after it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from ris_verified import signals
from ris_verified.errors import StoppedError
from ris_verified.signals import STOPPING, stop_requests


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_noted_and_handlers_come_back(number):
    before = [signal.getsignal(n) for n in STOPPING]
    with stop_requests() as stop:
        assert stop() == 0
        os.kill(os.getpid(), number)
        assert stop() == number
    assert [signal.getsignal(n) for n in STOPPING] == before


def test_the_first_signal_counts_and_those_passed_on_are_the_same_request():
    with stop_requests() as stop:
        assert stop() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop() == signal.SIGTERM


def test_a_later_interrupt_is_one(monkeypatch):
    monkeypatch.setattr(signals, "SAME_SECONDS", -1.0)
    with stop_requests() as stop:
        assert stop() == 0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_before_the_first_question_a_signal_does_what_it_did():
    before = [signal.getsignal(n) for n in STOPPING]
    with stop_requests():
        assert [signal.getsignal(n) for n in STOPPING] == before


def test_elsewhere_than_in_the_main_thread_nothing_is_taken():
    seen = []

    def work():
        with stop_requests() as stop:
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]


def test_the_error_names_the_signal():
    assert str(StoppedError(15, "after step 3", remedy="go on")) == "stopped by SIGTERM after step 3; go on"
