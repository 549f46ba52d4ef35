"""A chat of one system and one user text as token ids, with the chat template of a causal LM's tokenizer."""

from __future__ import annotations

import hashlib
from typing import Any

import torch


class ChatTokens:
    """Makes prompts of texts.

    Args:
        tokenizer: The tokenizer of a causal LM, from transformers.

    Attributes:
        tokenizer: The same.
        template_sha256: A hash of its chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = self._tokenizer = tokenizer
        self.template_sha256 = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()
        self._special = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True)

    def ids(self, system: str, user: str) -> torch.Tensor:
        """Return the token ids (1 L) of a prompt; special tokens in the user text are broken up."""
        user = self._plain(user)
        if not self._tokenizer.chat_template:
            return self._tokenizer(f"{system}\n\n{user}\n", return_tensors="pt").input_ids
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception:  # templates without a system turn raise many kinds of errors
            turns = [{"role": "user", "content": f"{system}\n\n{user}"}]
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return self._tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids

    def _plain(self, text: str) -> str:
        # a prediction must not be able to end the turn by writing a special token
        for token in self._special:
            if len(token) > 1 and not token.isspace():
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text
