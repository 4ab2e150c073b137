"""The store of jobs and how they are told, without a server."""

from __future__ import annotations

from typing import Any

from kintsugi.headless.server import jobs as jobs_module
from kintsugi.headless.server.job_items import job_item
from kintsugi.headless.server.jobs import Job, JobStore
from kintsugi.headless.server.outgoing import Outgoing


def job(name: str, number: float = 0, **more: Any) -> Job:
    return Job(name, number, {}, [], {}, None, create_time=0, **more)


def test_jobs_come_by_number_and_equal_ones_as_they_came() -> None:
    store = JobStore()
    for name, number in (("a", 1), ("b", 0), ("c", 1), ("d", -2)):
        assert store.add(job(name, number))
    taken = []
    while store.pending():
        current = store.take()
        assert current is not None
        taken.append(current.id)
        store.finish(current, "completed")
    assert taken == ["d", "b", "a", "c"] and store.remaining == 0


def test_an_id_is_taken_while_its_job_is_known() -> None:
    store = JobStore()
    assert store.add(job("a")) and not store.add(job("a"))
    current = store.take()
    assert current is not None and not store.add(job("a"))
    store.finish(current, "failed")
    assert not store.add(job("a"))
    store.drop_finished({"a"})
    assert store.add(job("a"))


def test_only_the_running_job_is_interrupted() -> None:
    store = JobStore()
    store.add(job("a"))
    store.add(job("b"))
    assert not store.interrupt()
    current = store.take()
    assert current is not None
    assert not store.interrupt("b") and not current.stop.is_set()
    assert store.interrupt("a") and current.stop.is_set()


def test_the_oldest_finished_jobs_are_forgotten(monkeypatch: Any) -> None:
    monkeypatch.setattr(jobs_module, "MOST_FINISHED", 3)
    store = JobStore()
    for index in range(5):
        store.add(job(str(index)))
        current = store.take()
        assert current is not None
        store.finish(current, "completed")
    assert [each.id for each in store.finished()] == ["2", "3", "4"]


def test_the_picture_that_stands_for_a_job_is_a_saved_one_before_a_temporary_one_before_a_text() -> None:
    text, saved = {"text": ["words"]}, {"images": [{"filename": "s.png", "subfolder": "a", "type": "output"}]}
    temporary = {"images": [{"filename": "t.png", "subfolder": "", "type": "temp"}], "animated": [False]}
    both = job_item(job("a", ui={"1": text, "2": temporary, "3": saved}))
    assert both["preview_output"] == {"filename": "s.png", "subfolder": "a", "type": "output", "nodeId": "3", "mediaType": "images"}
    assert (both["outputs_count"], both["previewable_outputs_count"]) == (3, 2)
    assert job_item(job("a", ui={"1": text, "2": temporary}))["preview_output"]["filename"] == "t.png"
    assert job_item(job("a", ui={"1": text}))["preview_output"] == {"nodeId": "1", "mediaType": "text", "content": "words"}
    assert "preview_output" not in job_item(job("a"))


def test_a_job_item_has_only_values_the_page_accepts() -> None:
    assert job_item(job("a", ui={"1": {"images": ["odd", {"filename": 3}], "points": [1, 2]}})) == {
        "id": "a", "status": "pending", "create_time": 0, "outputs_count": 0, "previewable_outputs_count": 0, "priority": 0,
    }  # fmt: skip


def test_newer_pictures_replace_unsent_ones_and_words_stay() -> None:
    queue = Outgoing(100)
    for frame, key in (("one", None), (b"old", "preview"), ("two", None), (b"new", "preview")):
        assert queue.put(frame, key)
    assert [queue.take() for _ in range(3)] == ["one", "two", b"new"] and not queue


def test_a_full_queue_drops_pictures_first_and_then_says_so() -> None:
    queue = Outgoing(10)
    assert queue.put("12345", None) and queue.put(b"1234", "preview")
    assert queue.put("12345", None)
    assert [queue.take(), queue.take()] == ["12345", "12345"]
    assert not queue.put("12345678901", None)
