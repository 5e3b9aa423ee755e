"""Events from the broker to the driver: none is lost with a reply, and none is told twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines.ray.events import Event, EventQueue, EventReader

STEPS = st.lists(
    st.one_of(st.integers(0, 4), st.sampled_from(["arrives", "lost", "twice", "died"])), max_size=40
)


@given(steps=STEPS)
def test_every_event_arrives_once_and_in_order_whatever_replies_are_lost(
    steps: list[int | str],
) -> None:
    queue, reader, number = EventQueue(), EventReader(), 0
    put: list[Event] = []
    told: list[Event] = []
    for step in [*steps, "arrives"]:
        if isinstance(step, int):
            for _ in range(step):
                put.append(("note", number, None))
                queue.put(put[-1])
                number += 1
        elif step == "died":
            # What it had not told yet is lost with it, and nothing else.
            queue, put = EventQueue(), told.copy()
        else:
            reply = queue.take(reader.name, reader.seen)
            if step != "lost":
                told += reader.fresh(reply)
            if step == "twice":
                # Two threads asked before either had an answer.
                told += reader.fresh(reply)
    assert told == put


def test_what_has_arrived_is_kept_no_longer() -> None:
    queue, reader = EventQueue(), EventReader()
    for number in range(1000):
        queue.put(("note", number, None))
        reader.fresh(queue.take(reader.name, reader.seen))
    assert len(queue.take(reader.name, reader.seen)[2]) == 0
