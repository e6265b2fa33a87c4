"""Text becomes numbers: CLIP's byte-level byte-pair encoding, loaded or trained.

The paper (section 2.4) encodes lower-cased text with a BPE of 49,152 entries, bracketed by
start-of-text and end-of-text. The algorithm is the `tokenizers` library's; what is CLIP's own, and
stands here, is how text is cut into words and how the vocabulary is numbered: the 256 bytes, the same
bytes as the last of a word, one entry a merge, and the two brackets at the very end. Notebook 02
builds the merges by hand.
"""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from .errors import MinclipError

OPENAI_MERGES = 49152 - 256 - 2  # of the many more in the published list
START, END, LAST = "<|startoftext|>", "<|endoftext|>", "</w>"
# A word is a run of letters, one digit, or a run of anything else that is not space (OpenAI's pattern).
WORD = Regex(r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")


class CLIPTokenizer:
    """Strings -> rows of token ids, each `START ... END`, padded with 0 to the longest row.

    truncated: how many captions so far were too long and lost their tail (never their END)
    """

    def __init__(self, backend: Tokenizer, context_length: int = 77):
        if context_length < 2:
            raise MinclipError(f"context_length is {context_length}; start and end of text alone need 2.")
        self.backend, self.context_length, self.truncated = backend, context_length, 0
        backend.enable_truncation(context_length)
        backend.no_padding()

    @property
    def vocab_size(self) -> int:
        return self.backend.get_vocab_size()

    @property
    def end_of_text(self) -> int:
        """The last id of all, so that `argmax` along a row finds it."""
        return self.vocab_size - 1

    def __call__(self, texts: str | list[str]) -> torch.Tensor:
        """List of B strings -> (B, L) int64, L the longest caption, at most `context_length`.

        Raises MinclipError for an empty list, or an entry that is not a string.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise MinclipError("The list of captions is empty; give the tokenizer at least one.")
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise MinclipError(f"Caption {place} is {text!r}, a {type(text).__name__}; captions must be strings.")
        encodings = self.backend.encode_batch_fast(texts)
        self.truncated += sum(bool(e.overflowing) for e in encodings)
        rows = [e.ids for e in encodings]
        lengths = np.array([len(row) for row in rows])
        tokens = np.zeros((len(rows), lengths.max()), dtype=np.int64)
        tokens[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(rows)  # far faster than lists to torch
        return torch.from_numpy(tokens)

    def decode(self, tokens: torch.Tensor | list[int]) -> str:
        """One row of ids -> text, up to its end-of-text."""
        ids = torch.as_tensor(tokens).tolist()
        ids = ids[: ids.index(self.end_of_text)] if self.end_of_text in ids else ids
        return self.backend.decode(ids).strip()

    def pieces(self, text: str) -> list[str]:
        """The text's tokens as readable strings, for looking at."""
        return self.backend.encode(text).tokens

    def to_json(self) -> str:
        """`tokenizer.json`, which `from_json` and the `tokenizers` and `transformers` libraries read."""
        return self.backend.to_str(pretty=True)

    @classmethod
    def from_json(cls, text: str, context_length: int = 77) -> "CLIPTokenizer":
        """What `to_json` returned, or the `tokenizer.json` of one of transformers' CLIP models.

        Raises MinclipError when it is damaged, or another kind of tokenizer.
        """
        try:
            contents = json.loads(text)
            vocabulary, merges = contents["model"]["vocab"], contents["model"]["merges"]
            merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]  # older: "a b"
            added = [token["content"] for token in contents["added_tokens"]]
            tokenizer = cls.from_vocabulary(vocabulary, merges, context_length)
        except MinclipError:
            raise
        except Exception as error:  # wrong in JSON, in shape, or to the library, which raises nothing more particular
            raise MinclipError(f"This is no tokenizer.json of CLIP's, or a damaged one: {error!r:.200}") from error
        if extra := [token for token in added if token not in vocabulary]:
            raise MinclipError(f"This tokenizer is not CLIP's: it has added {extra[0]!r} after {END}.")
        return tokenizer

    @classmethod
    def from_merges(cls, merges: list[tuple[str, str]], context_length: int = 77) -> "CLIPTokenizer":
        """The tokenizer that these merges define, in order of precedence."""
        alphabet = [_byte_characters()[byte] for byte in _vocabulary_order()]
        entries = [*alphabet, *(c + LAST for c in alphabet), *(a + b for a, b in merges), START, END]
        vocabulary = {entry: i for i, entry in enumerate(dict.fromkeys(entries))}
        return cls.from_vocabulary(vocabulary, merges, context_length)

    @classmethod
    def from_vocabulary(
        cls, vocabulary: dict[str, int], merges: list[tuple[str, str]], context_length: int = 77
    ) -> "CLIPTokenizer":
        """The tokenizer of these merges, its entries numbered as given, from 0 to END.

        Raises MinclipError when they are numbered otherwise.
        """
        numbers = [vocabulary.get(START), *sorted(vocabulary.values())]
        if numbers != [len(vocabulary) - 2, *range(len(vocabulary))] or vocabulary.get(END) != numbers[-1]:
            raise MinclipError(
                f"This vocabulary is not CLIP's: it is not numbered from 0 on, with {START} and {END} last."
            )
        backend = Tokenizer(models.BPE(vocabulary, merges, unk_token=END, end_of_word_suffix=LAST))
        _cut_into_words(backend)
        backend.add_special_tokens([START, END])
        backend.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
        )
        return cls(backend, context_length)

    @classmethod
    def from_openai_merges(cls, path: str | Path, context_length: int = 77) -> "CLIPTokenizer":
        """OpenAI's `bpe_simple_vocab_16e6.txt.gz`: a heading, then the merges, the first 48,894 of use.

        Raises MinclipError when there is no such file, or it is damaged.
        """
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                lines = file.read().split("\n")[1 : OPENAI_MERGES + 1]
            if len(lines) < OPENAI_MERGES:
                raise ValueError(f"{len(lines)} merges where {OPENAI_MERGES} are expected")
            return cls.from_merges([tuple(line.split()) for line in lines], context_length)
        except Exception as error:  # gzip, zlib and tokenizers each have their own
            raise MinclipError(f"{path} is not OpenAI's list of merges, or damaged: {error!s:.200}") from error

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int = 1024, context_length: int = 77) -> "CLIPTokenizer":
        """Learn the merges that shorten these captions most, for at most `vocab_size` entries.

        Raises MinclipError when `vocab_size` leaves no room for the 512 bytes and the two brackets.
        """
        room = vocab_size - 2 * 256 - 2
        if room < 0:
            raise MinclipError(f"vocab_size is {vocab_size}; bytes, last bytes and brackets alone need 514.")
        backend = Tokenizer(models.BPE(end_of_word_suffix=LAST))
        _cut_into_words(backend)
        alphabet = [_byte_characters()[byte] for byte in _vocabulary_order()]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, end_of_word_suffix=LAST, show_progress=False, initial_alphabet=alphabet,
            # Of two pairs equally frequent, the one with the smaller ids is merged first. Without this line the
            # last bytes get theirs in the order of a hash table, and no two trainings give the same merges.
            special_tokens=[character + LAST for character in alphabet],
        )  # fmt: skip
        backend.train_from_iterator(captions, trainer)
        merges = json.loads(backend.to_str())["model"]["merges"][:room]
        return cls.from_merges([tuple(merge) for merge in merges], context_length)


def _cut_into_words(backend: Tokenizer) -> None:
    """Lower case, single spaces, words by OpenAI's pattern, and each word's bytes as characters."""
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(WORD, behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(LAST, " ")])


def _vocabulary_order() -> list[int]:
    """The 256 bytes as GPT-2 and CLIP number them: the printable ones first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return printable + [byte for byte in range(256) if byte not in printable]


def _byte_characters() -> dict[int, str]:
    """The visible character that stands for each byte: itself, or one from U+0100 on."""
    order = _vocabulary_order()
    return {byte: chr(byte if place < 188 else 256 + place - 188) for place, byte in enumerate(order)}
