from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys

import pytest

from sfllava.files import RunError
from sfllava.runs.journal import Journal, hold, read_rows_once


def read(path):
    return read_rows_once(path, "row", {"key": str}, lambda row: (row["key"],), "a second row for {}")


def test_a_half_written_last_line_is_cut_off_and_logged(tmp_path, caplog):
    path = tmp_path / "rows"
    path.write_bytes(b'{"key": "a"}\n{"key"')
    with caplog.at_level(logging.WARNING, "sfllava"), Journal(path, read) as journal:
        assert path.read_bytes() == b'{"key": "a"}\n'
        journal.append([{"key": "b"}, {"key": "c"}])
        assert [row["key"] for row in journal.rows()] == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: cut off a half-written last line of 6 bytes"
    ]


def test_whole_lines_are_not_cut_off(tmp_path, caplog):
    path = tmp_path / "rows"
    path.write_bytes(b'{"key": "a"}\n')
    with Journal(path, read):
        assert path.read_bytes() == b'{"key": "a"}\n'
    assert not caplog.records


def test_a_write_that_fails_half_way_is_rolled_back(tmp_path, monkeypatch):
    write, calls = os.write, []

    def full(descriptor, data):
        if calls:
            raise OSError(errno.ENOSPC, "No space left on device")
        calls.append(1)
        return write(descriptor, data[:5])

    with Journal(tmp_path / "rows", read) as journal:
        journal.append([{"key": "a"}])
        with monkeypatch.context() as patch:
            patch.setattr("sfllava.runs.journal.os.write", full)
            with pytest.raises(RunError, match="cannot write: No space left on device"):
                journal.append([{"key": "b"}])
        assert journal.path.read_bytes() == b'{"key": "a"}\n'
        journal.append([{"key": "c"}])
        assert [row["key"] for row in journal.rows()] == ["a", "c"]


def test_rows_are_replaced_and_more_are_appended(tmp_path):
    with Journal(tmp_path / "rows", read) as journal:
        journal.append([{"key": "a"}, {"key": "b"}])
        journal.replace([{"key": "b"}])
        journal.append([{"key": "c"}])
    assert journal.path.read_bytes() == b'{"key": "b"}\n{"key": "c"}\n'


def test_a_second_row_of_a_key_is_named_with_its_line(tmp_path):
    (tmp_path / "rows").write_text('{"key": "a"}\n{"key": "b"}\n{"key": "a"}\n')
    with pytest.raises(RunError, match=r"rows, line 3: a second row for a$"):
        list(read(tmp_path / "rows"))


def test_a_lock_is_released_when_its_process_is_killed(tmp_path):
    lock = tmp_path / ".lock"
    code = (
        f"import filelock, time; lock = filelock.FileLock({str(lock)!r}); lock.acquire(); "
        f"print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"held\n"
            with pytest.raises(RunError, match=r"^busy$"), hold(lock, "busy"):
                pass
        finally:
            process.send_signal(signal.SIGKILL)
    with hold(lock, "busy"):
        pass
