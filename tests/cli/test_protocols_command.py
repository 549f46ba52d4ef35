"""`sfllava protocols` on runs whose replies were made messy by known rules."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from messy_runs import MESSY, make_messy
from PIL import Image
from written_runs import write_run

from sfllava.analysis.protocol_tables import protocol_accuracy, protocol_pairs, read_differently
from sfllava.analysis.protocols import read_by_protocols
from sfllava.analysis.stats import group_mean
from sfllava.cli import main
from sfllava.types import SfllavaError

COLOURS = ("green", "red", "blue", "pink")
QUESTIONS, VIDEOS = 100, 20


def shapes_rows(setting="s", questions=QUESTIONS):
    """Rows of a ShapesQA choice run in which every reply is the right letter."""
    return [
        {
            "key": f"choice/{i}", "setting": setting, "video": f"v{i % VIDEOS}", "type": f"t{i % 2}",
            "question": "What colour is the small square?", "answer": COLOURS[i // 10 % 4], "options": list(COLOURS),
            "prediction": "ABCD"[i // 10 % 4],
        }
        for i in range(questions)
    ]  # fmt: skip


def messy_run(folder, benchmark="choice", failed=(), **more):
    return write_run(folder, make_messy(shapes_rows(), failed), benchmark, **more)


def table_of(run, **options):
    return protocol_accuracy(read_by_protocols(run, **options)).set_index("protocol")


# Ten questions for each rule of MESSY, all with the right letter: A, B, C, D, A, B, C, D, A, B.
# How many of the ten are right under each protocol:
#              plain (x) Answer best option think text article empty either
RIGHT = {
    "strict": (10, 10, 0, 10, 0, 0, 0, 0, 0, 0),
    # "Answer:" is A; "The best" is unparsable; "Best option:" is B; blue begins with b; "A green" is A; of two letters,
    # the first in the alphabet
    "official": (10, 0, 3, 0, 3, 0, 0, 3, 0, 8),
    "lmms-eval": (10, 0, 10, 10, 10, 10, 0, 3, 0, 10),
    "vlmevalkit": (10, 10, 10, 10, 10, 10, 10, 3, 0, 0),
}


def test_each_rule_and_each_protocol_counted_by_hand(tmp_path):
    """The number of right replies of each messy rule, and their sum, the accuracy of the run."""
    readings = read_by_protocols(messy_run(tmp_path / "run"))
    for protocol, counts in RIGHT.items():
        correct = readings.by_protocol[protocol]["correct"]
        assert tuple(int(correct[rule :: len(MESSY)].sum()) for rule in range(len(MESSY))) == counts, protocol
    table = protocol_accuracy(readings).set_index("protocol")
    assert {name: table.loc[name, "accuracy"] for name in RIGHT} == {name: sum(of) for name, of in RIGHT.items()}
    assert (table["counted"] == QUESTIONS).all() and (table["low"] < table["accuracy"]).all()
    assert (table["accuracy"] < table["high"]).all() and (table["guessed"] == 0).all()
    assert table.loc["strict", "unparsable"] == table.loc["strict", "unread_wrong"] == 70


def test_failed_questions_are_wrong_unless_the_protocol_leaves_them_out(tmp_path):
    table = table_of(messy_run(tmp_path / "run", failed=(0, 10, 20)))
    assert (table["questions"] == 100).all() and (table["failed"] == 3).all()
    assert table.loc["strict", "counted"] == 100 and table.loc["strict", "accuracy"] == sum(RIGHT["strict"]) - 3
    assert table.loc["official", "counted"] == 97 and table.loc["official", "left_out"] == 3
    assert table.loc["official", "accuracy"] == pytest.approx(100 * (sum(RIGHT["official"]) - 3) / 97)
    assert "failed questions are left out" in table.loc["official", "note"]


def test_empty_replies_are_right_in_mvbench_by_its_official_rule(tmp_path):
    rows = [row | {"prediction": ""} for row in shapes_rows()]
    rows[0] |= {"prediction": None, "error": "no such video"}
    table = table_of(write_run(tmp_path / "mvbench", rows, "mvbench"))
    assert table.loc["official", "accuracy"] == 99 and table.loc["official", "unread_right"] == 99
    assert table.loc["strict", "accuracy"] == 0 and table.loc["strict", "unread_wrong"] == 100
    assert table.loc["lmms-eval", "counted"] == 0 and pd.isna(table.loc["lmms-eval", "accuracy"])
    assert table.loc["lmms-eval", "left_out"] == 100
    for benchmark in ("videomme", "mlvu", "longvideobench", "egoschema", "choice"):
        table = table_of(write_run(tmp_path / benchmark, rows, benchmark))
        assert (table["unread_right"] == 0).all(), benchmark


def test_guesses_are_those_of_the_seed(tmp_path):
    rows = [row | {"prediction": "no idea"} for row in shapes_rows()]
    run = write_run(tmp_path / "run", rows, "longvideobench")
    one, again, other = (table_of(run, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert one.loc["lmms-eval", "accuracy"] != other.loc["lmms-eval", "accuracy"]
    # protocols with the same rule guess the same, both alone and together with others
    assert one.loc["official", "accuracy"] == one.loc["lmms-eval", "accuracy"]
    assert table_of(run, seed=1, protocols=["official"]).loc["official", "accuracy"] == one.loc["official", "accuracy"]
    for table in (one, other):
        assert 5 < table.loc["official", "accuracy"] < 50 and table.loc["official", "guessed"] == 100
        assert table.loc["official", "expected"] == 25 and table.loc["official", "unparsable"] == 100
        assert table.loc["strict", "accuracy"] == table.loc["strict", "expected"] == 0
    # a guess does not depend on the order of the rows
    rows.reverse()
    turned = table_of(write_run(tmp_path / "turned", rows, "longvideobench"), seed=1)
    assert turned.loc["official", "accuracy"] == one.loc["official", "accuracy"]


def test_each_protocol_has_its_own_mean(tmp_path):
    rows = shapes_rows()
    for i, row in enumerate(rows):  # 80 questions of one type, all right; 20 of the other, all wrong
        row |= {"type": "ego"} if i < 80 else {"type": "count", "prediction": "A" if row["answer"] != "green" else "B"}
    table = table_of(write_run(tmp_path / "run", rows, "mlvu"))
    assert {name: table.loc[name, "accuracy"] for name in ("official", "lmms-eval")} == {
        "official": 50,
        "lmms-eval": 50,
    }
    assert table.loc["vlmevalkit", "accuracy"] == pytest.approx(80)
    assert table.loc["official", "mean"] == "2 means, by type" and table.loc["vlmevalkit", "mean"] == "all questions"


def test_the_mean_of_groups_and_its_interval():
    found = pd.DataFrame({"right": [1, 1, 0, 1, 0, 0, 0, 1] * 10, "video": [f"v{i // 4}" for i in range(80)]})
    right, videos = found["right"].to_numpy(float), found["video"].to_numpy(str)
    even = group_mean(right, (found.index % 2).to_numpy().astype(str), videos)
    assert even.mean == pytest.approx((right[::2].mean() + right[1::2].mean()) / 2) and even.low < even.mean < even.high
    few = group_mean(right, (found.index < 72).astype(str), videos)  # 2 videos weigh as much as 18
    assert few.mean == pytest.approx((right[:72].mean() + right[72:].mean()) / 2)
    assert few.high - few.low > 1.3 * (even.high - even.low)


def tempcompass_rows():
    captions = ["Caption A: it rises", "Caption B: it falls"]
    kinds = [
        ({"task": "yes_no", "options": [], "answer": "yes"}, ["yes", "Not sure", "no idea", "Yes!"]),
        ({"task": "caption_matching", "options": captions, "answer": captions[1]}, ["B", "Caption B: falls", "2", "it falls"]),
        ({"task": "choice", "options": ["up", "down"], "answer": "up"}, ["A.", "(A)", "up", "A) up"]),
        ({"task": "captioning", "options": [], "answer": "x"}, ["a ball"]),
    ]  # fmt: skip
    return [
        {"key": f"tempcompass/{i}/{j}", "setting": "s", "video": f"v{j}", "groups": {"form": about["task"]}}
        | (
            {name: value for name, value in about.items() if (name, value) != ("task", "choice")}
            | {"prediction": reply}
        )
        for i, (about, replies) in enumerate(kinds)
        for j, reply in enumerate(replies)
    ]


def test_tempcompass_has_several_tasks_in_one_run(tmp_path, capsys):
    run = write_run(tmp_path / "run", tempcompass_rows(), "tempcompass")
    readings = read_by_protocols(run)
    shown = read_differently(readings).set_index("key")
    assert shown.loc["tempcompass/0/1", ["official", "strict"]].tolist() == ["no wrong", "none wrong"]
    assert shown.loc["tempcompass/1/1", ["right", "official", "strict"]].tolist() == [
        "Caption B",
        "none wrong",
        "Caption B right",
    ]
    assert shown.loc["tempcompass/2/1", ["right", "official", "strict"]].tolist() == ["A", "none wrong", "A right"]
    assert set(shown.index) == {"tempcompass/0/1", "tempcompass/1/1", "tempcompass/2/1"}
    table = table_of(run)
    # of four: yes_no 2, caption_matching 2, multiple choice 2
    assert table.loc["official", "accuracy"] == 50 and table.loc["official", "mean"] == "3 means, by form"
    assert table.loc["vlmevalkit", "accuracy"] == 50 and table.loc["vlmevalkit", "counted"] == 12
    assert main(["protocols", str(run)]) == 0
    assert "\n1 questions need a judge: they are in none of these numbers.\n" in capsys.readouterr().out


def test_pairs_and_what_differs(tmp_path):
    readings = read_by_protocols(messy_run(tmp_path / "run"), ["strict", "official"])
    (pair,) = protocol_pairs(readings).to_dict("records")
    # only official parses: all 10 of Answer, Best option, article and either, and the 2 blue ones of text; only strict
    # parses: all 10 of (x) and of The best answer
    strict, official = (readings.by_protocol[name] for name in ("strict", "official"))
    assert pair["read_differently"] == int((strict["chosen"] != official["chosen"]).sum()) == 62
    assert (pair["only_one_right"], pair["only_other_right"]) == (20, 17)
    shown = read_differently(readings)
    assert len(shown) == 62 and (shown["strict"].head(37) != shown["official"].head(37)).all()
    graded = [row["strict"].split()[-1] != row["official"].split()[-1] for row in shown.to_dict("records")]
    assert graded == sorted(graded, reverse=True) and sum(graded) == 37
    first = shown.iloc[0][["key", "reply", "right", "strict", "official"]].tolist()
    assert first == ["choice/1", "(a) green", "A", "A right", "none wrong"]


def test_the_command_prints_tables_and_writes_files(tmp_path, capsys):
    rows = make_messy(shapes_rows("16 frames"), tuple(range(3, 13))) + make_messy(shapes_rows("8 frames"))
    rows[1] |= {"prediction": "=HYPERLINK()\x1b[31m \ud800 \u202eB"}
    run = write_run(tmp_path / "run", rows, "longvideobench", identity={"questions": 101})
    out, csv = tmp_path / "out", tmp_path / "differing.csv"
    assert main(["protocols", str(run), "--out", str(out), "--csv", str(csv), "--list", "30", "--seed", "7"]) == 0
    said = capsys.readouterr().out
    assert "1. 16 frames: 100 questions about 20 videos, 10 failed\n  protocol " in said
    assert "2. 8 frames: 100 questions about 20 videos\n" in said
    assert "Guesses are those of seed 7" in said and "vlmevalkit: its judge is off: unparsable replies" in said
    assert "\n2 questions have not been asked yet" in said and "\x1b" not in said and "\u202e" not in said
    listed = said[said.index("are read or counted differently") :].splitlines()[1:]
    assert len(listed) == 31 and listed[0].split() == [
        "key",
        "setting",
        "reply",
        "right",
        "lmms-eval",
        "official",
        "strict",
        "vlmevalkit",
    ]
    assert any("(failed)" in line for line in listed)
    table = pd.read_csv(csv, keep_default_na=False)
    assert len(table) == int(said.split(" of 200 replies")[0].rsplit("\n", 1)[1])
    assert (
        table.loc[table["key"].eq("choice/1") & table["setting"].eq("16 frames"), "reply"]
        .item()
        .startswith("'=HYPERLINK")
    )
    assert {path.name for path in out.iterdir()} == {
        "protocols.csv", "protocol_pairs.csv", "differing.csv", "protocols.svg", "protocols.pdf", "protocols.png",
    }  # fmt: skip
    assert len(pd.read_csv(out / "protocols.csv")) == 8
    with Image.open(out / "protocols.png") as picture:
        assert picture.width > 1500 and len(set(picture.convert("RGB").resize((300, 200)).getdata())) > 20
    drawn = (out / "protocols.svg").read_text()
    assert "16 frames" in drawn and "vlmevalkit" in drawn and "guessed" in drawn
    assert main(["protocols", str(run), "--setting", "8 frames", "--protocol", "strict", "--list", "0"]) == 0
    said = capsys.readouterr().out
    assert "16 frames" not in said and "official" not in said and "1 questions have not been asked yet" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("RUN", "--protocol", "best"),
            "no protocol is called 'best'; choose from lmms-eval, official, strict, vlmevalkit",
        ),
        (("RUN", "--setting", "x"), "no setting is called 'x'; choose from s"),
        (("RUN", "--seed", "-1"), "the seed must be at least 0, got -1"),
        (("RUN", "--list", "-1"), "--list must be at least 0, got -1"),
        (("OPEN",), "needed questions with options, got open questions: they need a judge"),
        (("EMPTY",), "no answers yet"),
        (("gone",), "gone/run.json: not the run.json of a run: "),
        (("BROKEN",), "line 1: not a row of predictions"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, message):
    write_run(tmp_path / "RUN", shapes_rows(questions=4), "choice")
    write_run(tmp_path / "OPEN", [row | {"options": []} for row in shapes_rows(questions=4)], "open")
    write_run(tmp_path / "EMPTY", [], "choice")
    write_run(tmp_path / "BROKEN", shapes_rows(questions=4), "choice")
    (tmp_path / "BROKEN" / "predictions.jsonl").write_text(json.dumps({"key": 3}) + "\n")
    assert main(["protocols", str(tmp_path / words[0]), *words[1:]]) == 1
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out


def test_a_negative_seed_is_an_error_in_python_too(tmp_path):
    run = write_run(tmp_path / "run", shapes_rows(questions=4), "choice")
    with pytest.raises(SfllavaError, match="seed must be at least 0"):
        read_by_protocols(run, seed=-3)


def test_clean_replies_are_parsed_the_same(tmp_path, capsys):
    run = write_run(tmp_path / "run", shapes_rows(questions=40), "choice")
    assert main(["protocols", str(run)]) == 0
    said = capsys.readouterr().out
    assert "0 of 40 replies are read or counted differently." in said and said.count("100.0 [") == 4
