"""The mailbox: items wait for the bell, come in order, and none is lost at the end."""

import asyncio
import os
import threading

from server.models.mailbox import Mailbox


def test_items_of_another_thread_come_in_order_once_the_bell_has_rung():
    async def scenario():
        mailbox, queue = Mailbox(), asyncio.Queue()
        for n in range(3):
            mailbox.post(queue, n)
        await asyncio.sleep(0.02)
        assert queue.empty(), "nobody has rung"
        threading.Thread(target=lambda: [mailbox.post(queue, 3), os.write(mailbox.bell, bytes(8))]).start()
        found = [await asyncio.wait_for(queue.get(), 5) for _ in range(4)]
        mailbox.close()
        return found

    assert asyncio.run(scenario()) == [0, 1, 2, 3]


def test_queues_get_their_own_items():
    async def scenario():
        mailbox, queues = Mailbox(), [asyncio.Queue() for _ in range(3)]
        for n in range(9):
            mailbox.post(queues[n % 3], n)
        os.write(mailbox.bell, bytes(8))
        found = [[await asyncio.wait_for(queue.get(), 5) for _ in range(3)] for queue in queues]
        mailbox.close()
        return found

    assert asyncio.run(scenario()) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_a_bell_that_nobody_answers_never_blocks():
    async def scenario():
        mailbox, queue = Mailbox(), asyncio.Queue()
        rings = 0
        try:
            for rings in range(1 << 20):  # noqa: B007  as many as there is room for
                os.write(mailbox.bell, bytes(8))
        except BlockingIOError:
            pass
        mailbox.post(queue, "here")
        assert await asyncio.wait_for(queue.get(), 5) == "here"
        mailbox.close()
        return rings

    assert asyncio.run(scenario()) > 100


def test_closing_delivers_what_is_left():
    async def scenario():
        mailbox, queue = Mailbox(), asyncio.Queue()
        mailbox.post(queue, "last")
        mailbox.close()
        return queue.get_nowait()

    assert asyncio.run(scenario()) == "last"
