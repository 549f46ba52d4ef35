"""Reading subtitles, and selecting those that are visible at the sampled frames."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sfllava.benchmarks.subtitles import Subtitle, SubtitleError, lines_at, read_subtitles

SRT = """\ufeff1
00:00:01,000 --> 00:00:02,500
<font color="white" size=".72c">Hello &amp; welcome</font>

2
00:00:02.500 --> 00:01:04,25 position:50%
{\\an8}<i>to</i> the
  <b>show</b>

3
01:00:00,000 --> 01:00:01,000


4
no times here
"""


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_subrip_with_tags(tmp_path, ends):
    assert read_subtitles(write(tmp_path / "a.srt", SRT.replace("\n", ends))) == [
        Subtitle(1.0, 2.5, "Hello & welcome"),
        Subtitle(2.5, 64.25, "to the show"),
        Subtitle(3600.0, 3601.0, ""),
    ]


def test_both_forms_of_json(tmp_path):
    rows = [
        {"start": "00:00:03.500", "end": "00:01:00.000", "line": "second"},
        {"timestamp": [1.25, 2], "text": "<b>first</b>"},
        {"timestamp": [70.0, None], "text": "last"},
        {"start": 4, "end": "5.5", "line": "third"},
    ]
    assert read_subtitles(write(tmp_path / "a.json", json.dumps(rows))) == [
        Subtitle(1.25, 2.0, "first"),
        Subtitle(3.5, 60.0, "second"),
        Subtitle(4.0, 5.5, "third"),
        Subtitle(70.0, math.inf, "last"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.srt", "", r"a\.srt: has no subtitles"),
        ("a.srt", "1\nhello\n", r"a\.srt: has no subtitles"),
        ("a.srt", b"\xff\xfe\x00", r"a\.srt: needed subtitles in UTF-8"),
        ("a.json", "{", r"a\.json: not readable as JSON"),
        ("a.json", "[" * 100_000, r"a\.json: not readable as JSON"),
        ("a.json", "{}", r"a\.json: needed a list of subtitles"),
        ("a.json", "[]", r"a\.json: has no subtitles"),
        ("a.json", "[1]", r"a\.json, subtitle 1: needed start, end and line, or timestamp and text"),
        ("a.json", '[{"start": 1, "end": 2, "text": "x"}]', "subtitle 1: needed start, end and line"),
        ("a.json", '[{"timestamp": [1], "text": "x"}]', "subtitle 1: needed start, end and line"),
        ("a.json", '[{"timestamp": ["soon", 2], "text": "x"}]', "subtitle 1: needed a time in seconds, got 'soon'"),
        ("a.json", '[{"timestamp": [true, 2], "text": "x"}]', "subtitle 1: needed a time in seconds, got True"),
        ("a.json", '[{"start": "1:1:1:1", "end": 2, "line": "x"}]', "needed a time in seconds, got '1:1:1:1'"),
        ("gone.srt", None, r"gone\.srt: cannot read the subtitles: No such file"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(SubtitleError, match=message):
        read_subtitles(tmp_path / name)


LINES = [Subtitle(0, 2, "a"), Subtitle(2, 4, "b"), Subtitle(4, 4.5, "c"), Subtitle(5, 9, "a"), Subtitle(9, 10, "")]


@pytest.mark.parametrize(
    ("seconds", "start", "lines"),
    [
        ([1.0, 3.0], 0, "a\nb"),
        ([1.0, 6.0], 0, "a"),  # a subtitle that is visible twice is listed once
        ([4.6, 4.9], 0, ""),  # between two subtitles
        ([2.0], 0, "a\nb"),  # at the end of one and the start of the next
        ([9.5], 0, ""),  # a subtitle without text
        ([4.2, 3.9], 0, "b\nc"),  # in the order of the subtitles, not of the frames
        ([1.0], 3, "b\nc"),  # the video starts 3 s into the subtitles: b and c end and begin there
        ([0.5], 3, "b"),
        ([math.nan, math.nan], 0, ""),  # a folder of images without times
        ([], 0, ""),
    ],
)
def test_subtitles_at_the_sampled_frames(seconds, start, lines):
    assert lines_at(LINES, np.array(seconds, float), start) == lines
