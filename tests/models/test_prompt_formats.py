"""The prompt format of a checkpoint, and its chat template."""

from __future__ import annotations

import pytest
from transformers import (
    AutoTokenizer,
)

from sfllava import Question, load_model
from sfllava.models.tiny.random_backbones import CHAT_TEMPLATES, write_random_backbone
from sfllava.prompts import chat_prompt, pack_prompt


@pytest.mark.parametrize("template", CHAT_TEMPLATES)
def test_text_around_the_video_matches_the_chat_template(tmp_path, template):
    backbone = {"onevision": "llava_onevision", "qwen": "qwen2_5_vl", "qwen3": "qwen3_vl"}.get(template, "llava")
    text = {"model_type": "qwen2"} if template == "llava_qwen" else {}
    model = load_model(write_random_backbone(tmp_path, backbone, template=template, text=text))
    assert model.info.family == template
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    tokenizer.chat_template = (tmp_path / "chat_template.jinja").read_text()

    def applied(*turns) -> str:
        return tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)

    user = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what?"}]}
    system = {"role": "system", "content": [{"type": "text", "text": "Be short."}]}
    before, after = chat_prompt(template, "Be short.").pieces(Question("what?"))
    place = "<|vision_start|><|video_pad|><|vision_end|>" if template in ("qwen", "qwen3") else "<video>"
    ours = before + place + after
    if template in ("vicuna", "llama3"):  # these templates write a line break after the video
        ours = ours.replace("<video>", "<video>\n")
    assert ours == applied(system, user)
    # each task's prompt has the same turns, and the system text that the checkpoint was trained with
    usual = {"role": "system", "content": [{"type": "text", "text": "You are a helpful assistant."}]}
    turns = (usual, user) if template == "llava_qwen" else (user,)
    for task in ("open", "choice", "describe"):
        text = pack_prompt(template, task).text
        start, end = applied(*turns).split("what?")
        end = end if template != "vicuna" else end.lstrip()
        assert end in text and (template in ("vicuna", "llama3") or text.startswith(start.replace(place, "<video>")))


def test_an_unknown_prompt_format_is_an_error(tmp_path):
    folder = write_random_backbone(tmp_path, "llava", template="llama3")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert load_model(folder).info.family == "llama3"  # by its special tokens
    tokens = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokens.replace("start_header_id", "other"))
    with pytest.raises(Exception, match=r"the prompt format is unknown.*--family.*llama3.*vicuna"):
        load_model(folder)
    assert load_model(folder, family="llama3").info.family == "llama3"
    with pytest.raises(Exception, match=r"no prompt family is called 'lama' \(did you mean 'llama3'\?\); choose from"):
        load_model(folder, family="lama")
