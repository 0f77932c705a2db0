"""Prompts as token ids: raw text as it is, messages through the model's own chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

from gopd_lightning.data.rows import Messages
from gopd_lightning.errors import InputError

_CHUNK = 4096  # texts a call
_OURS = ("add_generation_prompt", "tokenize", "return_dict")


class PromptEncoder:
    """Reads prompts the way one model does.

    Args:
        tokenizer: The model's Hugging Face tokenizer.
        template_kwargs: Arguments of the model's chat template (`enable_thinking: false`, say).
        label: What messages call the model.

    Raises:
        InputError: `template_kwargs` sets what the encoder sets itself.
    """

    def __init__(self, tokenizer: Any, template_kwargs: Mapping[str, Any] | None, label: str) -> None:
        self.tokenizer = tokenizer
        self.template_kwargs = dict(template_kwargs or {})
        self.label = label
        for key in _OURS:
            if key in self.template_kwargs:
                raise InputError(f"{label}: template_kwargs must not set {key}; remove it")
        self._prefix = _default_prefix(tokenizer)

    def encode(self, prompt: str | Messages, source: str) -> tuple[list[int], str]:
        """Tokenise one prompt.

        Args:
            prompt: Text, or chat messages.
            source: File and row, for messages.

        Returns:
            Token ids, and the text that they stand for (the rendered template, without a raw text's BOS).

        Raises:
            InputError: There is no chat template, it refuses the messages, or nothing is left to read.
        """
        return self.encode_many([prompt], [source])[0]

    def encode_many(self, prompts: Sequence[str | Messages], sources: Sequence[str]) -> list[tuple[list[int], str]]:
        """Tokenise many prompts, in few calls of the tokenizer.

        Args:
            prompts: Texts and lists of messages, in any mixture.
            sources: File and row of each.

        Returns:
            Ids and text of each, in order, as `encode` gives them.

        Raises:
            InputError: As `encode`; the message names the first such row.
        """
        texts = [self._render(prompt, source) for prompt, source in zip(prompts, sources, strict=True)]
        # A rendered template carries its own special tokens: only raw text gets the tokenizer's default ones.
        ids = [
            self._prefix + body if isinstance(prompt, str) else body
            for prompt, body in zip(prompts, self._tokenise(texts), strict=True)
        ]
        empty = next((source for row, source in zip(ids, sources, strict=True) if not row), None)
        if empty is not None:
            raise InputError(f"{empty}: `prompt` is empty once tokenised for {self.label}")
        return list(zip(ids, texts, strict=True))

    def encode_strings(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise raw texts in one call.

        Args:
            texts: Texts without a chat template.

        Returns:
            Token ids of each, a BOS in front if the tokenizer adds one by default, never an EOS.
        """
        return [self._prefix + body for body in self._tokenise(texts)]

    def encode_response(self, text: str) -> list[int]:
        """Token ids of a given response, end-of-sequence included.

        Args:
            text: The response.

        Returns:
            Its ids without any other special token, then the EOS id.
        """
        return self.encode_responses([text])[0]

    def encode_responses(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_response` of many texts, in one call of the tokenizer.

        Args:
            texts: The responses.

        Returns:
            Ids of each, in order.

        Raises:
            InputError: The tokenizer has no end-of-sequence token.
        """
        end = self.tokenizer.eos_token_id
        if end is None:
            raise InputError(f"{self.label}: the tokenizer has no eos_token, so no response can end; set one")
        return [[*body, end] for body in self._tokenise(texts)]

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None and not backend.padding and not backend.truncation:
            # Less than half the time of the tokenizer's own call, which makes offsets and masks as well.
            chunks = (texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK))
            batches = (backend.encode_batch_fast(list(chunk), add_special_tokens=False) for chunk in chunks)
            return [encoding.ids for batch in batches for encoding in batch]
        return [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    def _render(self, prompt: str | Messages, source: str) -> str:
        if isinstance(prompt, str):
            return prompt
        if not self.tokenizer.chat_template:
            hint = "give it one, or write the prompts as text"
            raise InputError(f"{source}: {self.label}'s tokenizer has no chat template for messages; {hint}")
        try:
            text = self.tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, tokenize=False, **self.template_kwargs
            )
        except Exception as error:  # templates raise what they like
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            message = f"{self.label}'s chat template refuses the messages ({reason})"
            raise InputError(f"{source}: {message}") from error
        return str(text)


def _default_prefix(tokenizer: Any) -> list[int]:
    """What the tokenizer puts in front of a text by default: a BOS, or nothing."""
    whole: list[int] = tokenizer("a")["input_ids"]
    body: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = (i for i in range(len(whole)) if body and whole[i : i + len(body)] == body)
    return whole[: next(starts, 0)]
