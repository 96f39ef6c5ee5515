"""Tokenizers of four families, trained on an experiment's own text.

`byte_bpe` (GPT-2, Pythia), `metaspace_bpe` (Llama, Mistral; with BOS), `unigram` (T5) and
`wordpiece` (BERT). The same texts give the same bytes. The library's Unigram and WordPiece
trainers differ from run to run, and its Unigram trainer never considers a word that
shares no part with another; both vocabularies are therefore derived from plain BPE's
pieces, by counting (for Unigram, expectation-maximisation over likeliest segmentations).
A newline is a token of its own in all four, since answers end there.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from kd.errors import ModelError, nearest
from kd.experiment.models import TokenizerSpec

PAD, EOS, UNK, BOS = "<pad>", "</s>", "<unk>", "<s>"
CONTINUATION = "##"  # marks a WordPiece piece that continues a word
METASPACE = "\u2581"  # stands for a space
UNIGRAM_SEEDS = 2  # candidates per place in the vocabulary
UNIGRAM_ROUNDS = 3  # of counting the likeliest segmentation and pruning

_NEWLINE = pre_tokenizers.Split("\n", "isolated")
_SPACES = Regex("[^\\S\n]+")
_PUNCTUATION = pre_tokenizers.Split(Regex(f"[^\\w\\s{METASPACE}]"), "isolated")


def train_tokenizer(spec: TokenizerSpec, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a tokenizer that pads on the left; its vocabulary is at most what `spec` asks.

    Raises:
        ModelError: the algorithm has no definition here.
    """
    if spec.algorithm not in TRAINERS:
        raise ModelError(
            f"No tokenizer algorithm is called '{spec.algorithm}'. "
            f"{nearest(spec.algorithm, TRAINERS)}"
        )
    tokenizer, special = TRAINERS[spec.algorithm](spec.vocabulary, list(texts))
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **special,
    )


Trained = tuple[Tokenizer, dict[str, str]]


def _byte_bpe(vocabulary: int, texts: Sequence[str]) -> Trained:
    special = {"pad_token": PAD, "eos_token": EOS}
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [_NEWLINE, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer, special


def _metaspace_bpe(vocabulary: int, texts: Sequence[str]) -> Trained:
    special = {"pad_token": PAD, "eos_token": EOS, "unk_token": UNK, "bos_token": BOS}
    tokenizer = Tokenizer(BPE(unk_token=UNK, fuse_unk=True))
    _use_metaspace(tokenizer)
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special.values()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer, special


def _unigram(vocabulary: int, texts: Sequence[str]) -> Trained:
    special = {"pad_token": PAD, "eos_token": EOS, "unk_token": UNK}
    letters = {char for text in texts for char in text if not char.isspace()} | {
        "\n",
        METASPACE,
    }
    base = [*special.values(), *sorted(letters)]
    tokenizer = Tokenizer(BPE())
    _use_metaspace(tokenizer)
    trainer = BpeTrainer(vocab_size=UNIGRAM_SEEDS * vocabulary, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    for _ in range(UNIGRAM_ROUNDS):
        counts = Counter(token for tokens in _segment(tokenizer, texts) for token in tokens)
        pieces = [*base, *_most_frequent(counts, base, vocabulary)]
        total = sum(counts.values()) + len(pieces)
        scores = [round(math.log((counts[piece] + 1) / total), 6) for piece in pieces]
        model = Unigram(list(zip(pieces, scores, strict=True)), unk_id=pieces.index(UNK))
        tokenizer = Tokenizer(model)
        _use_metaspace(tokenizer)
    tokenizer.add_special_tokens(list(special.values()))
    return tokenizer, special


def _wordpiece(vocabulary: int, texts: Sequence[str]) -> Trained:
    special = {"pad_token": PAD, "eos_token": EOS, "unk_token": UNK}
    splitter = pre_tokenizers.Sequence(
        [_NEWLINE, pre_tokenizers.Split(_SPACES, "removed"), _PUNCTUATION]
    )
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = splitter
    bpe.train_from_iterator(texts, BpeTrainer(vocab_size=vocabulary, show_progress=False))
    counts = Counter(
        token if place == 0 else CONTINUATION + token
        for tokens in _segment(bpe, texts)
        for place, token in enumerate(tokens)
    )
    letters = sorted({char for text in texts for char in text if not char.isspace()})
    base = [
        *special.values(),
        "\n",
        *letters,
        *(CONTINUATION + char for char in letters),
    ]
    pieces = [*base, *_most_frequent(counts, base, vocabulary)]
    ids = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token=UNK, max_input_chars_per_word=64))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION, cleanup=True)
    tokenizer.add_special_tokens(list(special.values()))
    return tokenizer, special


def _segment(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[str]]:
    """The pieces of every word, one list per occurrence."""
    for encoding in tokenizer.encode_batch(list(texts)):
        marked = zip(encoding.tokens, encoding.word_ids, strict=True)
        for _, word in itertools.groupby(marked, key=lambda pair: pair[1]):
            yield [token for token, _ in word]


def _most_frequent(counts: Counter[str], base: Sequence[str], vocabulary: int) -> list[str]:
    """Pieces beside `base` that fill a vocabulary, most frequent first, ties by spelling."""
    ranked = sorted(set(counts) - set(base), key=lambda piece: (-counts[piece], piece))
    return ranked[: max(0, vocabulary - len(base))]


def _use_metaspace(tokenizer: Tokenizer) -> None:
    # "never": a text's first word gets no space that it does not have, so that a
    # prompt and its answer can be encoded apart.
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.normalizer = normalizers.Replace(_SPACES, " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_NEWLINE, metaspace, _PUNCTUATION])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")


TRAINERS: dict[str, Callable[[int, Sequence[str]], Trained]] = {
    "byte_bpe": _byte_bpe,
    "metaspace_bpe": _metaspace_bpe,
    "unigram": _unigram,
    "wordpiece": _wordpiece,
}
