"""The model for lmms-eval, tested without lmms-eval: its arguments, and its answers by video."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from sfllava.lmms_bridge.answering import NO_ANSWER, Request, answer_requests, one_video, read_request, task_prompt
from sfllava.lmms_bridge.arguments import check_arguments, loading_names
from sfllava.lmms_bridge.plugin import VideoModel
from sfllava.prompts import families
from sfllava.runs.ask import ask
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

AGGREGATION = "slowfast-slow_2frms_spatial_1d_max_pool-fast_4x4"
GIVEN = {"pretrained": "tiny", "frames": 4, "aggregation": AGGREGATION}
QUESTIONS = ("How many things move?", "Which colour is the square?\n(A) red\n(B) blue\nAnswer with a letter.")


@pytest.fixture
def model(models):
    """A model with random weights, which always answers with the maximum number of tokens."""
    return models("vicuna")


@pytest.fixture
def encoded(model, monkeypatch):
    """The shape of the frames in each call of `model.encode`."""
    calls, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda frames, *rest: calls.append(frames.shape) or encode(frames, *rest))
    return calls


def request(video, text=QUESTIONS[0], **more):
    return Request(text, str(video), **more)


def alone(model, one):
    """The answer of `ask` to one request alone."""
    setting, prompt = Setting(4, AGGREGATION), task_prompt(model.info.family)
    asked = [Question(one.text)]
    return ask(model, one.video, asked, setting, prompt=prompt, max_new_tokens=one.max_new_tokens).answers[0]


def test_requests_answered_together_match_each_request_alone(model, videos, encoded):
    requests = [
        request(videos / f"{name}.mp4", text, max_new_tokens=length)
        for text, length in ((QUESTIONS[0], 3), (QUESTIONS[1], 16))
        for name in "abc"
    ]
    requests += [requests[0], request(videos / "b.mp4", QUESTIONS[0], max_new_tokens=1)]
    replies = answer_requests(model, requests, check_arguments(GIVEN), progress=False)
    assert len(encoded) == 3
    for one, reply in zip(requests, replies, strict=True):
        wanted = alone(model, one)
        assert (reply.text, reply.output_tokens, reply.video) == (wanted.text, len(wanted.token_ids), one.video)
        assert reply.visual_tokens == wanted.visual_tokens and not reply.error
    assert replies[-1].text != replies[1].text and len({reply.text for reply in replies}) > 2


def test_an_answer_ends_before_a_stop_string(model, videos):
    whole = alone(model, request(videos / "a.mp4", QUESTIONS[1], max_new_tokens=16)).text
    end = whole[len(whole) // 2]
    one = request(videos / "a.mp4", QUESTIONS[1], max_new_tokens=16, until=("not in it", end))
    (reply,) = answer_requests(model, [one], check_arguments(GIVEN), progress=False)
    assert end not in reply.text and whole.startswith(reply.text) and len(reply.text) < len(whole)


def test_a_video_that_cannot_be_read_is_named_and_counted(model, videos, tmp_path, caplog):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes((videos / "a.mp4").read_bytes()[:200])
    requests = [request(broken), request(videos / "a.mp4"), request(broken, QUESTIONS[1]), request(tmp_path / "no.mp4")]
    replies = answer_requests(model, requests, check_arguments(GIVEN), progress=False)
    assert [reply.text == NO_ANSWER for reply in replies] == [True, False, True, True]
    assert replies[0].to_dict()["error"] and "error" not in replies[1].to_dict()
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors[0].startswith(f"{broken}: 2 requests without an answer: ")
    assert errors[1].startswith(f"{tmp_path / 'no.mp4'}: 1 request without an answer: ")
    assert errors[2].startswith("3 of 4 requests have no answer")
    # it stays in the denominator of a task that drops empty answers, and names no option
    assert NO_ANSWER.strip() and not any(map(str.isalnum, NO_ANSWER))


def test_a_broken_device_ends_the_evaluation(model, videos, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(model, "encode", fail)
    requests = [request(shutil.copy(videos / "a.mp4", tmp_path / f"{i}.mp4")) for i in range(4)]
    with pytest.raises(SfllavaError, match=r"3 videos in a row failed.*device-side assert$"):
        answer_requests(model, requests, check_arguments(GIVEN), progress=False)


def test_a_setting_that_does_not_fit_ends_before_a_video_is_decoded(model, videos):
    large = check_arguments(GIVEN | {"frames": 4000})
    with pytest.raises(SfllavaError, match="do not fit the context"):
        answer_requests(model, [request(videos / "nothing.mp4")], large, progress=False)


@pytest.mark.parametrize("family", families())
def test_the_prompt_is_the_chat_format_and_nothing_but_the_text(family):
    before, after = task_prompt(family).pieces(Question("THE TEXT"))
    assert after.lstrip("\n").startswith("THE TEXT") and "Reply" not in before + after and "{" not in before + after


def test_the_prompt_of_two_families():
    chatml = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<video>{}{{question}}"
    for family, gap in (("llava_qwen", "\n"), ("qwen", "")):
        assert task_prompt(family).text == chatml.format(gap) + "<|im_end|>\n<|im_start|>assistant\n"
    assert task_prompt("vicuna").text.endswith("<video>\n{question} ASSISTANT:")


DOCUMENTS = {"task": {"test": [{"video": "a.mp4"}]}}


def read(visuals=None, notes=None, **options):
    visuals = visuals or (lambda doc: [doc["video"]])
    note = (notes if notes is not None else []).append
    return read_request(("text", options, visuals, 0, "task", "test"), DOCUMENTS, note)


def test_the_options_of_a_request():
    assert read(max_new_tokens=7, until=["\n", ""]) == Request("text", "a.mp4", 7, ("\n",))
    assert read(until="stop") == Request("text", "a.mp4", 1024, ("stop",))
    notes = []
    read(notes=notes, temperature=0, do_sample=False, num_beams=1, top_p=1.0, image_aspect_ratio="pad")
    assert not notes
    read(notes=notes, temperature=0.7, num_beams=3)
    (line,) = notes
    assert (
        line.startswith("task task: sfllava always decodes greedily")
        and "temperature=0.7, num_beams=3 has no effect" in line
    )
    with pytest.raises(SfllavaError, match=r"task task, document 0: max_new_tokens must be .* got 0"):
        read(max_new_tokens=0)


class Image:
    """A stand-in for a PIL image."""


@pytest.mark.parametrize(
    ("visuals", "got"),
    [
        ([Image()], "got Image"),
        ([Image()] * 5, "got Image, Image, Image and 2 more"),
        (["a.mp4", "b.mp4"], "got 'a.mp4', 'b.mp4'"),
        (["a.JPG"], "got 'a.JPG'"),
        ([{"array": [0.0], "sampling_rate": 1}], "got dict"),
        ([], "got no visual"),
        (None, "got no visual"),
    ],
)
def test_what_is_not_one_video_is_refused(visuals, got):
    with pytest.raises(SfllavaError, match=r"^task t, document 3: .* needed one path of a video, got ") as error:
        one_video(visuals, "task t, document 3")
    assert str(error.value).endswith(got)
    assert one_video("a.mp4", "") == one_video(["a.mp4"], "") == "a.mp4"


def test_arguments():
    found = check_arguments({**GIVEN, "rope_factor": "none", "context": 2048, "device": "cpu", "decoders": 1})
    assert found.pretrained == "tiny" and found.setting == Setting(4, AGGREGATION) and found.decoders == 1
    assert found.loading == {"rope_factor": None, "context": 2048, "device": "cpu"}
    assert check_arguments({"pretrained": "tiny"}).setting == Setting()
    assert {"device", "dtype", "vision_tower", "positions", "timestamps"} <= {*loading_names()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needed pretrained=PATH"),
        ({"pretrained": "tiny", "frame": 4}, "unknown frame; choose from pretrained, frames, aggregation, device, "),
        ({"pretrained": "tiny", "frames": "many"}, "frames must be a whole number, got 'many'"),
        ({"pretrained": "tiny", "frames": True}, "frames must be a whole number, got True"),
        ({"pretrained": "tiny", "frames": 0}, "frames must be a whole number of at least 1, got 0"),
        ({"pretrained": "tiny", "aggregation": "fastest"}, "fastest"),
        ({"pretrained": "tiny", "device": 0}, "device must be text, got 0"),
        ({"pretrained": "tiny", "timestamps": "yes"}, "timestamps must be true or false, got 'yes'"),
        ({"pretrained": "tiny", "decode_seconds": 0}, "decode_seconds must be above 0, got 0"),
    ],
)
def test_bad_arguments(given, message):
    with pytest.raises(SfllavaError) as error:
        check_arguments(given)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_other_kinds_of_tasks_are_refused():
    model = VideoModel(**GIVEN, batch_size="1", device="cpu")
    for ask_for in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(SfllavaError, match=r"^task seedbench_ppl: .* whose output_type is generate_until$"):
            ask_for([SimpleNamespace(task_name="seedbench_ppl")])


@pytest.mark.parametrize("name", ["selection", "scorer", "frame_list"])
def test_frames_are_not_chosen_for_prompts(model, videos, name):
    """Requests are prompts; a run by sfllava has the questions, and the message says so."""
    with pytest.raises(SfllavaError, match=rf"model_args: {name}: .* use `sfllava evaluate --selection`$") as error:
        check_arguments({**GIVEN, name: "topk"})
    assert "\n" not in str(error.value)
    arguments = SimpleNamespace(setting=Setting(4, AGGREGATION, selection="topk"), decoders=1, decode_seconds=9.0)
    with pytest.raises(SfllavaError, match=r"4frms-topk-.*: .* use `sfllava evaluate --selection`"):
        answer_requests(model, [request(videos / "a.mp4")], arguments, progress=False)
