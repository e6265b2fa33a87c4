"""Answers to the exercises on reading text: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import re
from collections import Counter

import torch
import torch.nn.functional as F

# 1. The most frequent pair


def most_frequent_pair__right_by_counter(words):
    counts = Counter()
    for word, times in words.items():
        for left, right in zip(word[:-1], word[1:]):
            counts[left, right] += times
    if not counts:
        return None
    highest = max(counts.values())
    return sorted(pair for pair in counts if counts[pair] == highest)[0]


def _counted(words, weigh=True, pairs=lambda word: zip(word, word[1:])):
    counts = Counter()
    for word, times in words.items():
        for pair in pairs(word):
            counts[pair] += times if weigh else 1
    return counts


def _first(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair), default=None)


def most_frequent_pair__each_word_once(words):
    """Counts distinct words. Belief: the keys of the dictionary are the text."""
    return _first(_counted(words, weigh=False))


def most_frequent_pair__once_a_word(words):
    """Counts a pair once in each word. Belief: what matters is how many words hold it."""
    return _first(_counted(words, pairs=lambda word: set(zip(word, word[1:]))))


def most_frequent_pair__first_met(words):
    """Leaves ties to the order of the dictionary. Belief: max settles ties by the alphabet."""
    counts = _counted(words)
    return max(counts, key=counts.get, default=None)


def most_frequent_pair__without_order(words):
    """Counts (a, b) and (b, a) together. Belief: a pair is a set of two."""
    return _first(_counted(words, pairs=lambda word: (tuple(sorted(pair)) for pair in zip(word, word[1:]))))


def most_frequent_pair__last_pair_missed(words):
    """Stops one symbol early. Belief: range(len(word) - 2) leaves out nothing."""
    return _first(_counted(words, pairs=lambda word: [(word[i], word[i + 1]) for i in range(len(word) - 2)]))


def most_frequent_pair__last_by_the_alphabet(words):
    """Settles ties the other way. Belief: reverse=True reverses only the counts."""
    counts = _counted(words)
    return max(counts, key=lambda pair: (counts[pair], pair), default=None)


def most_frequent_pair__never_none(words):
    """Has no answer for words without pairs. Belief: there is always something left to merge."""
    counts = _counted(words)
    return min(counts, key=lambda pair: (-counts[pair], pair))


def most_frequent_pair__ties_by_the_joined_text(words):
    """Of equals, the first once joined. Belief: a pair is the text that it will become."""
    counts = _counted(words)
    return min(counts, key=lambda pair: (-counts[pair], "".join(pair)), default=None)


def most_frequent_pair__the_shortest_first(words):
    """Breaks ties by length, then by the alphabet. Belief: short symbols come first in any order."""
    counts = _counted(words)
    return min(counts, key=lambda pair: (-counts[pair], len(pair[0]), pair), default=None)


def most_frequent_pair__capitals_are_letters(words):
    """Breaks ties as a dictionary would. Belief: Python's order of strings is that of the alphabet."""
    counts = _counted(words)
    return min(counts, key=lambda pair: (-counts[pair], tuple(s.lower() for s in pair)), default=None)


# 2. One merge


def merge_pair__right_by_a_stack(word, pair):
    out, fresh = [], False  # fresh: the last symbol was just joined
    for symbol in word:
        if out and not fresh and (out[-1], symbol) == pair:
            out[-1] += symbol
            fresh = True
        else:
            out.append(symbol)
            fresh = False
    return tuple(out)


def merge_pair__right_in_place(word, pair):
    symbols, i = list(word), 0
    while i < len(symbols) - 1:
        if symbols[i] == pair[0] and symbols[i + 1] == pair[1]:
            symbols[i : i + 2] = ["".join(pair)]
        i += 1
    return tuple(symbols)


def merge_pair__the_first_alone(word, pair):
    """Joins one occurrence. Belief: a pair occurs once in a word."""
    for i in range(len(word) - 1):
        if word[i : i + 2] == pair:
            return (*word[:i], pair[0] + pair[1], *word[i + 2 :])
    return tuple(word)


def merge_pair__overlapping(word, pair):
    """Moves on by one symbol after a merge. Belief: each start of the pair is an occurrence."""
    out, i = [], 0
    while i < len(word):
        joined = word[i : i + 2] == pair
        out.append(pair[0] + pair[1] if joined else word[i])
        i += 2 if joined and word[i + 1 : i + 3] != pair else 1
    return tuple(out)


def merge_pair__by_text(word, pair):
    """Replaces in the joined text. Belief: symbols are their letters."""
    return tuple(" ".join(word).replace(" ".join(pair), "".join(pair)).split(" "))


def merge_pair__letters_of_all_symbols(word, pair):
    """Looks for the letters, wherever symbols begin. Belief: "ab" next to "c" holds the pair (b, c)."""
    text, target, out, i = "".join(word), "".join(pair), [], 0
    while i < len(text):
        size = len(target) if text.startswith(target, i) else 1
        out.append(text[i : i + size])
        i += size
    return tuple(out)


def merge_pair__last_symbol_lost(word, pair):
    """Reads pairs only, so a last symbol that belongs to none is not written. Belief: zip covers all symbols."""
    out, skip = [], False
    for left, right in zip(word, word[1:]):
        if skip:
            skip = False
        elif (left, right) == pair:
            out.append(left + right)
            skip = True
        else:
            out.append(left)
    return tuple(out)


def merge_pair__from_the_right(word, pair):
    """Joins from the end. Belief: the direction does not matter."""
    out, i = [], len(word)
    while i > 0:
        size = 2 if word[max(0, i - 2) : i] == pair else 1
        out.insert(0, "".join(word[i - size : i]))
        i -= size
    return tuple(out)


def merge_pair__again_and_again(word, pair):
    """Joins, and joins what came of it. Belief: the pair aa also joins aa, aa."""
    out = []
    for symbol in word:
        if out and out[-1].endswith(pair[0]) and symbol == pair[1]:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def merge_pair__by_a_pattern_between_spaces(word, pair):
    """Joins symbols with spaces and replaces by a regular expression. Belief: no symbol holds a space or a backslash."""
    pattern = re.compile(r"(?<!\S)" + re.escape(" ".join(pair)) + r"(?!\S)")
    return tuple(pattern.sub("".join(pair), " ".join(word)).split())


# 3. A word encoded


def encode_word__right_each_merge_in_turn(word, merges):
    symbols = tuple(word[:-1]) + (word[-1] + "</w>",)
    for pair in merges:
        symbols = merge_pair__right_by_a_stack(symbols, pair)
    return list(symbols)


def encode_word__right_one_occurrence_at_a_time(word, merges):
    symbols = list(word)
    symbols[-1] += "</w>"
    while True:
        places = [(merges.index(p), i) for i, p in enumerate(zip(symbols, symbols[1:])) if p in merges]
        if not places:
            return symbols
        _, i = min(places)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


def _letters(word):
    return [*word[:-1], word[-1] + "</w>"]


def encode_word__left_to_right(word, merges):
    """Joins the leftmost pair that is known. Belief: reading goes from left to right."""
    symbols = _letters(word)
    i = 0
    while i + 1 < len(symbols):
        if (symbols[i], symbols[i + 1]) in merges:
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            i = 0
        else:
            i += 1
    return symbols


def encode_word__longest_first(word, merges):
    """Takes the longest entry that fits. Belief: BPE is a dictionary look-up."""
    entries = {a + b for a, b in merges}
    text, out, letters = word + "</w>", [], _letters(word)
    while text:
        fitting = [entry for entry in entries if text.startswith(entry)]
        best = max(fitting, key=len, default=letters[len(word + "</w>") - len(text)] if text != "</w>" else text)
        out.append(best)
        text = text[len(best) :]
    return out


def encode_word__end_not_marked(word, merges):
    """Leaves the mark out. Belief: `</w>` is a matter of training."""
    symbols = tuple(word)
    for pair in merges:
        symbols = merge_pair__right_by_a_stack(symbols, pair)
    return list(symbols)


def encode_word__end_a_symbol_of_its_own(word, merges):
    """Puts the mark behind the last letter. Belief: `</w>` is a symbol like a letter."""
    symbols = (*word, "</w>")
    for pair in merges:
        symbols = merge_pair__right_by_a_stack(symbols, pair)
    return list(symbols)


def encode_word__latest_first(word, merges):
    """Applies the merges in reverse. Belief: the latest merges are the longest, so they come first."""
    symbols = tuple(_letters(word))
    for pair in reversed(merges):
        symbols = merge_pair__right_by_a_stack(symbols, pair)
    return list(symbols)


def encode_word__first_occurrence_of_each(word, merges):
    """Each merge is applied once. Belief: a pair occurs once in a word."""
    symbols = tuple(_letters(word))
    for pair in merges:
        symbols = merge_pair__the_first_alone(symbols, pair)
    return list(symbols)


def encode_word__merges_used_up(word, merges):
    """Takes each merge off the list it was given. Belief: the caller has no more use for it."""
    symbols = tuple(_letters(word))
    while merges:
        symbols = merge_pair__right_by_a_stack(symbols, merges.pop(0))
    return list(symbols)


def encode_word__in_small_letters(word, merges):
    """Lowers the letters first. Belief: a tokenizer knows no capitals."""
    return encode_word__right_each_merge_in_turn(word.lower(), merges)


def encode_word__a_tuple(word, merges):
    """Returns a tuple. Belief: a word is one everywhere here."""
    return tuple(encode_word__right_each_merge_in_turn(word, merges))


# 4. Causal attention


def causal_attention__right_by_pytorch(queries, keys, values):
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


def causal_attention__right_in_a_loop(queries, keys, values):
    out = []
    for i in range(queries.shape[1]):
        scores = torch.einsum("bd,bjd->bj", queries[:, i], keys[:, : i + 1]) * queries.shape[-1] ** -0.5
        out.append(torch.einsum("bj,bjv->bv", scores.softmax(-1), values[:, : i + 1]))
    return torch.stack(out, dim=1)


def _scores(queries, keys):
    return queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5


def _mask(scores, diagonal=1):
    return torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal)


def causal_attention__without_mask(queries, keys, values):
    """Everybody sees everybody. Belief: attention is attention."""
    return _scores(queries, keys).softmax(-1) @ values


def causal_attention__forwards(queries, keys, values):
    """The mask transposed. Belief: keys go down and queries across."""
    scores = _scores(queries, keys)
    return scores.masked_fill(_mask(scores).T, -torch.inf).softmax(-1) @ values


def causal_attention__blind_to_itself(queries, keys, values):
    """Masks the diagonal as well. Belief: a token knows itself from the residual stream; the first row is then NaN."""
    scores = _scores(queries, keys)
    return scores.masked_fill(_mask(scores, 0), -torch.inf).softmax(-1) @ values


def causal_attention__masked_after_softmax(queries, keys, values):
    """Sets weights to 0 afterwards. Belief: the rest still sums to 1."""
    scores = _scores(queries, keys)
    return scores.softmax(-1).masked_fill(_mask(scores), 0) @ values


def causal_attention__masked_with_zero(queries, keys, values):
    """Puts 0 where -inf belongs. Belief: a score of 0 is no attention (exp 0 is 1)."""
    scores = _scores(queries, keys)
    return scores.masked_fill(_mask(scores), 0).softmax(-1) @ values


def causal_attention__not_scaled(queries, keys, values):
    """No division by the root of D. Belief: the softmax does not mind a factor."""
    scores = queries @ keys.transpose(1, 2)
    return scores.masked_fill(_mask(scores), -torch.inf).softmax(-1) @ values


def causal_attention__softmax_over_queries(queries, keys, values):
    """Softmax down the columns. Belief: each key spreads itself over the queries."""
    scores = _scores(queries, keys)
    return scores.masked_fill(_mask(scores), -torch.inf).softmax(-2) @ values


def causal_attention__masked_with_minus_a_hundred(queries, keys, values):
    """A finite number for minus infinity. Belief: -100 is small enough for any scores."""
    scores = _scores(queries, keys)
    return scores.masked_fill(_mask(scores), -100.0).softmax(-1) @ values


def causal_attention__detached(queries, keys, values):
    """Hands out numbers without their graph. Belief: attention is a matter of numbers."""
    return causal_attention__right_by_pytorch(queries, keys, values).detach()


def causal_attention__weights_as_numbers(queries, keys, values):
    """Makes the weights of Python's numbers. Belief: only the values need a gradient."""
    scores = _scores(queries, keys)
    weights = scores.masked_fill(_mask(scores), -torch.inf).softmax(dim=-1)
    return torch.tensor(weights.tolist(), dtype=values.dtype) @ values


# 5. What stands at end-of-text


def pool_end_of_text__right_by_gather(x, tokens):
    places = tokens.argmax(dim=-1)[:, None, None].expand(-1, 1, x.shape[-1])
    return x.gather(1, places).squeeze(1)


def pool_end_of_text__right_in_a_loop(x, tokens):
    return torch.stack([vectors[row.tolist().index(max(row.tolist()))] for vectors, row in zip(x, tokens)])


def pool_end_of_text__last_position(x, tokens):
    """The last of the row. Belief: captions fill their rows."""
    return x[:, -1]


def pool_end_of_text__first_position(x, tokens):
    """Position 0. Belief: text has a class token, as pictures have."""
    return x[:, 0]


def pool_end_of_text__mean(x, tokens):
    """The mean of all positions. Belief: pooling means averaging."""
    return x.mean(dim=1)


def pool_end_of_text__every_place_for_every_caption(x, tokens):
    """A slice where a list belongs. Belief: x[:, places] takes the i-th place for row i."""
    return x[:, tokens.argmax(dim=1)]


def pool_end_of_text__behind_the_caption(x, tokens):
    """One place too far. Belief: the number of tokens is the place of the last one."""
    places = (tokens.argmax(dim=1) + 1).clamp(max=tokens.shape[1] - 1)
    return x[torch.arange(len(x)), places]


def pool_end_of_text__the_last_of_equal_ids(x, tokens):
    """The last place of the largest id. Belief: padding is always 0."""
    places = tokens.shape[1] - 1 - tokens.flip(1).argmax(dim=1)
    return x[torch.arange(len(x)), places]


def pool_end_of_text__last_that_is_not_zero(x, tokens):
    """The number of ids above 0, less 1. Belief: padding is 0, and nothing else may be."""
    return x[torch.arange(len(x)), (tokens != 0).sum(dim=1) - 1]


def pool_end_of_text__with_a_known_id(x, tokens):
    """Looks for 49407. Belief: every vocabulary is OpenAI's."""
    return x[torch.arange(len(x)), (tokens == 49407).int().argmax(dim=1)]


def pool_end_of_text__detached(x, tokens):
    """Copies numbers out. Belief: pooling has no gradient."""
    return x.detach()[torch.arange(len(x)), tokens.argmax(dim=1)]


# 7. Rows of token ids


def mended_rows__right_into_zeros(captions, context_length, start, end):
    lengths = [min(len(ids), context_length - 2) for ids in captions]
    rows = torch.zeros(len(captions), max(lengths) + 2, dtype=torch.long)
    rows[:, 0] = start
    for row, ids, length in zip(rows, captions, lengths):
        row[1 : length + 1] = torch.tensor(ids[:length], dtype=torch.long)
        row[length + 1] = end
    return rows


def _rows(captions, start, end, cut, pad):
    rows = [cut([start, *ids, end]) for ids in captions]
    longest = max(map(len, rows))
    return torch.tensor([pad(row, longest) for row in rows])


def _behind(row, longest):
    return row + [0] * (longest - len(row))


def mended_rows__end_cut_off(captions, context_length, start, end):
    """Mends the padding alone. Belief: a caption that is too long just loses its tail (and its end with it)."""
    return _rows(captions, start, end, lambda row: row[:context_length], _behind)


def mended_rows__padded_in_front(captions, context_length, start, end):
    """Mends the cutting alone. Belief: padding is harmless wherever it stands."""

    def cut(row):
        return row if len(row) <= context_length else [*row[: context_length - 1], end]

    return _rows(captions, start, end, cut, lambda row, longest: [0] * (longest - len(row)) + row)


def mended_rows__always_to_the_full(captions, context_length, start, end):
    """Pads to the context length. Belief: the model wants rows of that length (it wants at most that)."""
    rows = [[start, *ids[: context_length - 2], end] for ids in captions]
    return torch.tensor([_behind(row, context_length) for row in rows])


def mended_rows__keeps_the_last_words(captions, context_length, start, end):
    """Keeps the tail of a long caption. Belief: what matters comes last."""
    kept = [ids[max(0, len(ids) - context_length + 2) :] for ids in captions]
    return _rows(kept, start, end, lambda row: row, _behind)


def mended_rows__start_not_counted(captions, context_length, start, end):
    """Leaves room for the end alone. Belief: context_length counts words and the end."""
    kept = [ids[: context_length - 1] for ids in captions]
    return _rows(kept, start, end, lambda row: row, _behind)


def mended_rows__padded_with_the_end(captions, context_length, start, end):
    """Pads with end of text, as transformers' tokenizer does. Belief: every tokenizer pads alike (the text above says zeros)."""
    kept = [ids[: context_length - 2] for ids in captions]
    return _rows(kept, start, end, lambda row: row, lambda row, longest: row + [end] * (longest - len(row)))


def mended_rows__ids_of_the_cell_above(captions, context_length, start, end):
    """Writes 98 and 99. Belief: START and END are there already, so the arguments are the same once more."""
    return _rows([ids[: context_length - 2] for ids in captions], 98, 99, list, _behind)
