"""Tokenization as in the training of the published models: each piece of the prompt separately."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sfllava.models.checkpoint import CheckpointError, read_json

PLACEHOLDERS = ("<image>", "<video>", "<pad>")
_INSIDE_PLACEHOLDER = re.compile("(?<=<)(?=(?:image|video|pad)>)")


class Tokenizer:
    """The tokenizer of a checkpoint: `sentencepiece` with its `tokenizer.model`, or else its `tokenizer.json`.

    transformers 5 has no slow Llama tokenizer any more, and its fast one loses a space token after the video. So this
    class splits off special tokens and leaves the rest to sentencepiece.

    Args:
        folder: The checkpoint folder.

    Attributes:
        placeholders: Token ids of the placeholders of images and padding.
        vocabulary: Number of token ids.
        bos_id: Token id that begins a prompt, None where the checkpoint uses none.
        eos_id: Token id that ends an answer, None where there is none.

    Raises:
        CheckpointError: There is no tokenizer, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        options = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
        self._sentencepiece = self._fast = None
        if (folder / "tokenizer.model").exists():
            import sentencepiece

            self._sentencepiece = sentencepiece.SentencePieceProcessor()
            try:
                self._sentencepiece.Load(str(folder / "tokenizer.model"))
            except (RuntimeError, OSError) as error:
                raise CheckpointError(f"{folder / 'tokenizer.model'}: not a sentencepiece model: {error}") from error
            sp = self._sentencepiece
            vocabulary = sp.GetPieceSize()
            control = (i for i in range(vocabulary) if sp.IsControl(i) or sp.IsUnknown(i))
            self._special = {sp.IdToPiece(i): i for i in control}
            # legacy (the default of the published checkpoints): text after a special token gets a space too
            self._legacy = options.get("legacy") is not False
        elif (folder / "tokenizer.json").exists():
            import tokenizers

            self._fast = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            vocabulary = self._fast.get_vocab_size(with_added_tokens=True)
            self._special = {}
        else:
            raise CheckpointError(f"{folder}: no tokenizer; needed tokenizer.model or tokenizer.json")
        added = _added_tokens(folder, options)
        # other code replaces these placeholders by images; here they are plain text
        self.placeholders = {i for token, i in added.items() if token in PLACEHOLDERS}
        if self._sentencepiece:
            self._special |= {token: i for token, i in added.items() if i not in self.placeholders}
        self.vocabulary = max([vocabulary, *(i + 1 for i in added.values())])
        bos = _text(options.get("bos_token")) or "<s>"
        self.bos_id: int | None = self.token_id(bos) if options.get("add_bos_token", True) else None
        self.eos_id: int | None = self.token_id(_text(options.get("eos_token")) or "</s>")
        self._split = re.compile("(" + "|".join(map(re.escape, sorted(self._special, key=len, reverse=True))) + ")")
        self._hidden_ids = {*self._special.values(), *self.placeholders, self.bos_id, self.eos_id}

    def token_id(self, token: str) -> int | None:
        """Return the id of a token given as text, or None."""
        if self._fast:
            return self._fast.token_to_id(token)
        if token in self._special:
            return self._special[token]
        assert self._sentencepiece is not None
        i = self._sentencepiece.PieceToId(token)
        return None if i == self._sentencepiece.unk_id() else i

    def encode(self, piece: str) -> list[int]:
        """Return the token ids of one piece of a prompt, without BOS."""
        if self._fast:
            # a placeholder in a question stays text, so it is cut in two
            parts = _INSIDE_PLACEHOLDER.split(piece)
            return [i for part in parts for i in self._fast.encode(part, add_special_tokens=False).ids]
        assert self._sentencepiece is not None
        ids: list[int] = []
        for i, part in enumerate(self._split.split(piece) if self._special else [piece]):
            if part in self._special:
                ids.append(self._special[part])
            elif part and (self._legacy or i == 0):
                ids += self._sentencepiece.EncodeAsIds(part)
            elif part:
                ids += self._without_space(part)
        return ids

    def _without_space(self, part: str) -> list[int]:
        """Encode a part without a leading space: after an anchor that the tokenizer does not merge with it."""
        encode = self._sentencepiece.EncodeAsIds  # type: ignore[union-attr]
        for anchor in ("\n", "<unk>", "\t", "|", "\x01"):
            front, whole = encode(anchor), encode(anchor + part)
            rest = whole[len(front) :]
            if whole[: len(front)] == front and self._sentencepiece.DecodeIds(front + rest).endswith(part):  # type: ignore[union-attr]
                return rest
        return encode(part)

    def decode(self, ids: list[int]) -> str:
        """Return the text of generated ids, stripped and without special tokens."""
        ids = [i for i in ids if i not in self._hidden_ids]
        if self._fast:
            return self._fast.decode(ids, skip_special_tokens=True).strip()
        assert self._sentencepiece is not None
        size = self._sentencepiece.GetPieceSize()
        return self._sentencepiece.DecodeIds([i for i in ids if i < size]).strip()


def _text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _added_tokens(folder: Path, options: dict[str, Any]) -> dict[str, int]:
    added = {str(_text(token)): int(i) for i, token in options.get("added_tokens_decoder", {}).items()}
    if (folder / "added_tokens.json").exists():
        added |= {token: int(i) for token, i in read_json(folder / "added_tokens.json").items()}
    return added
