"""The sizes of a checkpoint by its config alone: enough to estimate the cost of a run without weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from sfllava.aggregators.base import Aggregator
from sfllava.catalogue import unknown_name
from sfllava.models.families import configure, find_family
from sfllava.models.family import LoadOptions, VideoText
from sfllava.models.known import KNOWN, known_name
from sfllava.models.language_model import sharing_limits
from sfllava.models.layouts import read_config
from sfllava.models.operations import Shape
from sfllava.models.prompt_formats import choose_format
from sfllava.models.tokenizer import Tokenizer
from sfllava.settings import Setting
from sfllava.types import SfllavaError

# Of English in the published vocabularies; for checkpoints without a local tokenizer
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Sizes:
    """The sizes of a checkpoint, the limits of its context, and its tokenizer.

    Attributes:
        name: A name in KNOWN, or the folder as given.
        shape: The sizes that the cost of a run depends on.
        native: The aggregator that `native` stands for.
        video_text: How much text the family writes between visual tokens.
        context: Number of positions of the longest prompt with its answer.
        shared_positions: Number of positions up to which questions may share a prefix; None for all.
        family: The prompt templates that suit the language model.
        tokenizer: None where it is not on this machine.
    """

    name: str
    shape: Shape
    native: Aggregator
    video_text: VideoText
    context: int
    shared_positions: int | None
    family: str
    tokenizer: Tokenizer | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches (h, w) of a frame."""
        return self.shape.grid

    def prompt_rows(self, setting: Setting) -> int:
        """Count the visual tokens of a setting and the text between them; see `ModelInfo.prompt_rows`."""
        aggregator = setting.for_model(self).aggregation
        return setting.for_model(self).token_count(*self.grid) + self.video_text.rows(aggregator, setting.frames)

    def count(self, text: str) -> int:
        """Count the tokens of a text; without a tokenizer, estimate one per four characters."""
        if self.tokenizer is None:
            return math.ceil(len(text) / _CHARACTERS_PER_TOKEN)
        return len(self.tokenizer.encode(text))


def sizes_of(model: str | Path, *, rope_factor: float | None = 2.0, context: int | None = None) -> Sizes:
    """Find the sizes of a checkpoint, without a download.

    Args:
        model: A checkpoint folder, of which only JSON and tokenizer are read; a name in KNOWN, or that of the same
            checkpoint on the hub; or `tiny`, the model in the package.
        rope_factor: As in `load_model`.
        context: As in `load_model`.

    Raises:
        SfllavaError: There is no such model; the message lists the names.
        CheckpointError: The config of the folder cannot be used.
    """
    name, folder = str(model), Path(model).expanduser()
    known = None if folder.is_dir() and name not in KNOWN else known_name(name)
    tokenizer = None
    if known:
        config_dict = KNOWN[known].config
    else:
        folder = Path(__file__).with_name("tiny") / "weights" if name == "tiny" else folder
        if not folder.is_dir():
            raise SfllavaError(unknown_name("model", name, [*KNOWN, "tiny"], ", or a checkpoint folder"))
        config_dict, _ = read_config(folder)
        if any((folder / file).exists() for file in ("tokenizer.model", "tokenizer.json")):
            tokenizer = Tokenizer(folder)
    family = find_family(config_dict, folder)
    made = configure(config_dict, folder, LoadOptions(rope_factor))
    limits = sharing_limits(made.config.get_text_config())
    own = KNOWN[known].family if known else family.prompt_family(made.config, folder, tokenizer)
    return Sizes(
        known or name,
        made.shape,
        made.native,
        made.video_text,
        min(context or made.context, made.positions),
        min(limits) if limits else None,
        # without a tokenizer the prompts' length is an estimate anyway
        choose_format(None, own or ("vicuna" if tokenizer is None else None), folder),
        tokenizer,
    )
