from __future__ import annotations

import io
import json
import os
import pickle
import shutil

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from sfllava.aggregators.slowfast import SlowFast
from sfllava.models.checkpoint import CheckpointError, fingerprint
from sfllava.models.layouts import read_checkpoint
from sfllava.models.load import load_model
from sfllava.models.tokenizer import Tokenizer
from sfllava.sampler.reading import read_video
from sfllava.types import SfllavaError

QUESTIONS = ["what is it?", "what is the color of the barrels of the raft?"]


def token_ids(model, path, questions=QUESTIONS):
    tokens = SlowFast()(model.encode(read_video(path, 12).frames))
    return [a.token_ids for a in model.answer(tokens, questions, max_new_tokens=12)]


def edit_json(path, **changes):
    value = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not ...}))


@pytest.fixture
def copy(checkpoints, tmp_path):
    def make(family="vicuna", layout="original"):
        return shutil.copytree(checkpoints(family, layout), tmp_path / "checkpoint")

    return make


@pytest.mark.parametrize("family", ["vicuna", "mistral", "chatml"])
def test_both_layouts_say_the_same(models, videos, family):
    one, other = models(family, "transformers"), models(family, "original")
    assert (one.info.layout, other.info.layout) == ("transformers", "original")
    assert one.info.family == other.info.family == family
    said = token_ids(one, videos / "a.mp4")
    assert said == token_ids(other, videos / "a.mp4")
    assert said != token_ids(other, videos / "b.mp4"), "a model that does not see would pass any test"


def test_what_transformers_itself_saves_loads_too(models, videos, copy, tmp_path):
    model = models("vicuna", "original")
    folder = copy("vicuna", "transformers")
    edited = json.loads((folder / "config.json").read_text())
    (folder / "model.safetensors").unlink()
    weights = load_file(str(models("vicuna", "transformers").info.path / "model.safetensors"))
    renames = (
        ("language_model.lm_head.", "lm_head."),
        ("language_model.model.", "model.language_model."),
        ("vision_tower.vision_model.", "model.vision_tower."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
        ("image_newline", "model.image_newline"),
    )
    names = {n: next(b + n[len(a) :] for a, b in renames if n.startswith(a)) for n in weights}
    save_file({names[n]: t for n, t in weights.items()}, folder / "model.safetensors")
    assert edited["model_type"] == "llava_next"
    assert token_ids(load_model(folder), videos / "a.mp4") == token_ids(model, videos / "a.mp4")


def to_bins(folder, shards, **save):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(weights), {}
    for i in range(shards):
        file = f"pytorch_model-{i + 1:05}-of-{shards:05}.bin"
        part = names[i::shards]
        torch.save({name: weights[name] for name in part}, folder / file, **save)
        index |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize("save", [{}, {"_use_new_zipfile_serialization": False}])
def test_sharded_bin_files(models, videos, copy, save):
    folder = copy()
    to_bins(folder, 3, **save)
    assert token_ids(load_model(folder), videos / "a.mp4") == token_ids(models(), videos / "a.mp4")


def test_which_vision_weights_count(models, videos, copy):
    """Without unfreeze_mm_vision_tower the tower's own weights count, even if the checkpoint has a copy."""
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    prefix = "model.vision_tower.vision_tower."
    own = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    other = {n: t + 0.3 if t.ndim > 1 else t for n, t in own.items()}
    save_file({**other, "text_model.unused": torch.zeros(2)}, folder / "clip" / "model.safetensors")
    inside = token_ids(models(), videos / "a.mp4")
    assert token_ids(load_model(folder), videos / "a.mp4") == inside
    edit_json(folder / "config.json", unfreeze_mm_vision_tower=False)
    assert token_ids(load_model(folder), videos / "a.mp4") != inside
    save_file(own, folder / "clip" / "model.safetensors")
    assert token_ids(load_model(folder), videos / "a.mp4") == inside
    shutil.move(folder / "clip", folder.parent / "elsewhere")
    assert token_ids(load_model(folder, vision_tower=folder.parent / "elsewhere"), videos / "a.mp4") == inside


def test_clip_large_is_known_without_a_download(copy):
    folder = copy()
    edit_json(folder / "config.json", mm_vision_tower="openai/clip-vit-large-patch14-336")
    config, _, _ = read_checkpoint(folder)
    vision = config["vision_config"]
    assert (vision["hidden_size"], vision["num_hidden_layers"], vision["image_size"]) == (1024, 24, 336)
    edit_json(folder / "config.json", unfreeze_mm_vision_tower=False)
    with pytest.raises(CheckpointError, match="vision weights are those of 'openai/clip-vit-large-patch14-336'"):
        load_model(folder)
    edit_json(folder / "config.json", mm_vision_tower="some/tower", unfreeze_mm_vision_tower=True)
    with pytest.raises(CheckpointError, match="mm_vision_tower 'some/tower' is neither a folder nor"):
        load_model(folder)


def test_missing_unexpected_and_misshapen_tensors_are_listed(copy):
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    gone = weights.pop("model.mm_projector.2.bias")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)  # a buffer of old checkpoints: harmless
    save_file({**weights, "model.extra.weight": gone}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="do not fit the config") as error:
        load_model(folder)
    assert "multi_modal_projector.linear_2.bias" in str(error.value) and "missing tensors" in str(error.value)
    assert "extra.weight" in str(error.value) and "unexpected tensors" in str(error.value)
    weights["model.mm_projector.2.bias"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"wrong shapes.*linear_2\.bias"):
        load_model(folder)


class Payload:
    def __reduce__(self):
        return os.system, ("touch RAN",)


def test_a_pickle_is_never_run(copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = copy()
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: refused: it holds something other than tensors"):
        load_model(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load_model(folder)
    assert not (tmp_path / "RAN").exists()


def bin_of(folder, value):
    (folder / "model.safetensors").unlink()
    torch.save(value, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "no weights; needed model.safetensors or pytorch_model.bin"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x10" * 99), r"model\.safetensors: damaged or cut off"),
        (lambda f: (f / "config.json").unlink(), r"config\.json: no such file; needed a checkpoint folder"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json: not readable as JSON"),
        (lambda f: edit_json(f / "config.json", mm_vision_tower=..., model_type="bert"), "got model_type 'bert'"),
        (lambda f: edit_json(f / "config.json", mm_projector_type="linear"), "mm_projector_type must be mlp2x_gelu"),
        (lambda f: edit_json(f / "config.json", hidden_size="wide"), r"config\.json"),
        (
            lambda f: edit_json(f / "config.json", num_hidden_layers=10**8),
            r"config\.json: text_config: num_hidden_layers must be from 1 to 1,000, got 100,000,000",
        ),
        (lambda f: edit_json(f / "config.json", hidden_size=10**9), "hidden_size must be from 1 to 65,536"),
        (lambda f: edit_json(f / "config.json", num_attention_heads=0), "num_attention_heads must be from 1 to"),
        (
            lambda f: edit_json(
                f / "config.json", num_hidden_layers=800, hidden_size=32_768, intermediate_size=131_072
            ),
            "the weights do not fit the config: it declares 10,[0-9,]+ parameters, and there are [0-9,]+$",
        ),
        (lambda f: edit_json(f / "config.json", vocab_size=...), "needed vocab_size, got None"),
        (
            lambda f: edit_json(f / "config.json", mm_vision_select_layer=-9),
            "vision_feature_layer is -9, but the tower has",
        ),
        (lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": []}'), "needed a weight_map"),
        (lambda f: (f / "generation_config.json").write_text("["), "cannot be loaded"),
        (lambda f: edit_json(f / "tokenizer_config.json", added_tokens_decoder=[]), "cannot be loaded"),
        (lambda f: bin_of(f, [1, 2]), r"pytorch_model\.bin: needed named tensors"),
        (lambda f: bin_of(f, {1: torch.zeros(1)}), r"pytorch_model\.bin: needed named tensors"),
        (lambda f: (f / "tokenizer.model").unlink(), "no tokenizer; needed tokenizer.model or tokenizer.json"),
        (lambda f: (f / "tokenizer.model").write_bytes(b"nothing"), r"tokenizer\.model: not a sentencepiece model"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}'),
            r"gone\.safetensors: the index names this file",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}'),
            "weight files are next to the index",
        ),
    ],
)
def test_spoilt_folders(copy, spoil, message):
    folder = copy()
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "nowhere", "./x"])
def test_no_such_folder(name):
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        load_model(name)


def test_a_hub_name_without_a_network():
    with pytest.raises(CheckpointError, match="llava-hf/nothing: neither a folder here nor a checkpoint that could be"):
        load_model("llava-hf/nothing")


def test_dtypes(checkpoints):
    assert load_model(checkpoints()).info.dtype == torch.float32
    assert load_model(checkpoints(), dtype="bfloat16").info.dtype == torch.bfloat16
    with pytest.raises(SfllavaError, match="dtype must be auto, float32, float16, bfloat16, got 'int8'"):
        load_model(checkpoints(), dtype="int8")


@pytest.mark.parametrize(
    ("device", "message"),
    [("tpu9", "device must be auto, cpu, cuda or cuda:N"), ("cuda", "no CUDA GPU is usable here")],
)
def test_devices(checkpoints, device, message):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SfllavaError, match=message):
        load_model(checkpoints(), device)


def test_device_map(models, checkpoints, videos):
    spread = load_model(checkpoints(), device_map={"": "cpu"})
    assert token_ids(spread, videos / "a.mp4") == token_ids(models(), videos / "a.mp4")


def test_fingerprints_tell_checkpoints_apart(copy, models, tmp_path):
    folder = copy()
    before = load_model(folder).info.fingerprint
    assert before == models("vicuna", "original").info.fingerprint != models("mistral", "original").info.fingerprint
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][5] += 1
    save_file(weights, folder / "model.safetensors")
    assert load_model(folder).info.fingerprint != before
    # the vision tower's own weights are part of what runs
    prefix = "model.vision_tower.vision_tower."
    tower = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    edit_json(folder / "config.json", unfreeze_mm_vision_tower=False)
    marks = set()
    for shift in (0.0, 0.1):
        own = shutil.copytree(folder / "clip", tmp_path / f"tower{shift}")
        save_file({n: t + shift if t.is_floating_point() else t for n, t in tower.items()}, own / "model.safetensors")
        marks.add(load_model(folder, vision_tower=own).info.fingerprint)
    assert len(marks) == 2


def test_a_fingerprint_sees_what_training_changes(tmp_path):
    weights = {"big": torch.zeros(1 << 20), "small": torch.zeros(3)}
    marks = {fingerprint(tmp_path, weights), fingerprint(tmp_path, {**weights, "small": torch.tensor([0.0, 1, 0])})}
    marks.add(fingerprint(tmp_path, {**weights, "big": weights["big"] + 1e-3}))
    marks.add(fingerprint(tmp_path, {**weights, "big": weights["big"].view(1 << 10, -1)}))
    marks.add(fingerprint(tmp_path, {**weights, "big": weights["big"].half()}))
    assert len(marks) == 5


def test_the_checkpoint_s_own_tower_comes_before_the_current_folder_s(copy, tmp_path, monkeypatch):
    folder = copy()
    (tmp_path / "here" / "clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    load_model(folder)
    with pytest.raises(CheckpointError, match="gone: no such folder of a vision tower"):
        load_model(folder, vision_tower="gone")


PIECES = [
    "what is it",
    " what",
    "\nwhat",
    "<b>what</b>",
    "  two",
    "",
    "é \U0001f600",
    "a</s>b",
    "<s>",
    "▁x",
    "x ",
    "</s>",
]


@pytest.mark.parametrize("piece", PIECES)
def test_seams_are_tokenized_as_published(checkpoints, piece):
    """Special tokens split off; every other part by the checkpoint's own sentencepiece, a space in front."""
    folder = checkpoints("vicuna", "original")
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    wanted = []
    rest = piece
    while rest:
        at, token = min(((rest.find(t), t) for t in ("<s>", "</s>") if t in rest), default=(len(rest), ""))
        wanted += (model.encode(rest[:at]) if at else []) + ([model.piece_to_id(token)] if token else [])
        rest = rest[at + len(token) :]
    assert Tokenizer(folder).encode(piece) == wanted


def test_a_space_at_the_seam_is_kept(checkpoints):
    tokenizer = Tokenizer(checkpoints("vicuna", "original"))
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_file(checkpoints)))
    assert tokenizer.encode("what") == model.encode("what")
    assert len(tokenizer.encode(" what")) == len(tokenizer.encode("what")) + 1
    assert model.id_to_piece(tokenizer.encode(" what")[0]) == "▁"


def tokenizer_file(checkpoints):
    return checkpoints("vicuna", "original") / "tokenizer.model"


def test_chatml_has_no_bos_and_its_own_end(models):
    model = models("chatml")
    assert model.info.tokenizer.bos_id is None
    start, end = (model.info.tokenizer.token_id(t) for t in ("<|im_start|>", "<|im_end|>"))
    assert model.info.tokenizer.encode("<|im_start|>what<|im_end|>")[0] == start
    assert model.info.tokenizer.encode("<|im_start|>what<|im_end|>")[-1] == end
    assert model.info.tokenizer.eos_id == end
    assert model.info.tokenizer.decode([start, *model.info.tokenizer.encode("what is"), end]) == "what is"


def test_without_legacy_no_space_behind_special_tokens(copy):
    folder = copy("chatml")
    old = Tokenizer(folder).encode("<|im_end|>what")
    edit_json(folder / "tokenizer_config.json", legacy=False)
    new = Tokenizer(folder).encode("<|im_end|>what")
    assert Tokenizer(folder).decode(new[1:]) == "what" and new != old
    assert Tokenizer(folder).encode("what") == old[1:]


@pytest.mark.parametrize("text", [", hello", "/b> x", " what", "\nwhat", "a"])
def test_text_behind_special_tokens_is_whole_without_legacy(tmp_path, text):
    """A vocabulary in which `>,` and `></` are pieces: what is put in front must not melt into the text."""
    model = io.BytesIO()
    corpus = ["a>, hello>, b>, x></b> x></i>, what>, a"] * 50
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(corpus), model_writer=model, vocab_size=300, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (tmp_path / "tokenizer_config.json").write_text('{"legacy": false}')
    tokenizer = Tokenizer(tmp_path)
    ids = tokenizer.encode("</s>" + text)
    assert ids[0] == tokenizer.eos_id
    assert tokenizer._sentencepiece.DecodeIds([tokenizer.encode("x")[-1], *ids[1:]]) == "x" + text


def test_the_image_placeholder_is_text(models, copy):
    """llava-hf's <image> id has an untrained row: in a question it is plain characters, and it is never said."""
    folder = copy("vicuna", "transformers")
    placeholder = json.loads((folder / "config.json").read_text())["image_token_index"]
    (folder / "added_tokens.json").write_text(json.dumps({"<image>": placeholder, "<pad>": placeholder + 1}))
    tokenizer = Tokenizer(folder)
    assert placeholder not in tokenizer.encode("an <image> here")
    assert tokenizer.encode("an <image> here") == models("vicuna", "original").info.tokenizer.encode("an <image> here")
    assert placeholder in load_model(folder).language_model.suppressed_ids


def test_tokenizer_json_serves_where_there_is_no_sentencepiece_model(copy, videos):
    import tokenizers

    folder = copy()
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    words = {vocabulary.id_to_piece(i): i for i in range(vocabulary.get_piece_size())}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    fast.decoder = tokenizers.decoders.Metaspace()
    (folder / "tokenizer.model").unlink()
    fast.save(str(folder / "tokenizer.json"))
    model = load_model(folder)
    assert model.info.tokenizer.bos_id == 1 and model.info.tokenizer.eos_id == 2
    assert model.info.tokenizer.encode("the raft") == [words["▁the"], words["▁raft"]]
    assert model.info.tokenizer.decode([1, words["▁the"], words["▁raft"], 2]).endswith("the raft")
