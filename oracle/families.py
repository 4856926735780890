"""The encoder families as the scripts make them: random models of any size, and tokenizers of their kind."""

from dataclasses import dataclass

import numpy
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertTokenizer,
    CamembertTokenizer,
    DistilBertTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

# Characters and their continuations, so that any word splits into known pieces; then whole words while there is room.
CHARACTERS = list("abcdeilnorstu")
PIECES = CHARACTERS + ["##" + c for c in CHARACTERS] + ["é", "余"]
TAILS = ["n", "st", "ral", "do", "tis", "lue"]
WORDS = [a + b + tail for a, b in zip("bcdlnrst" * 3, "aeiou" * 5) for tail in TAILS]


BRACKETED = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_piece(tokenizer_class, vocabulary, longest):
    pieces = {piece: i for i, piece in enumerate((BRACKETED + PIECES + WORDS)[:vocabulary])}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer_class(tokenizer_object=tokenizer, model_max_length=longest)


def byte_pairs(special, vocabulary):
    """Ids of a vocabulary over bytes, and its merges."""
    tokens, merges = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())], []
    for word in WORDS:
        for end in range(1, len(word)):
            merged = (word[:end], word[end])
            if len(tokens) < vocabulary and "".join(merged) not in tokens:
                merges.append(merged)
                tokens.append("".join(merged))
    return {token: i for i, token in enumerate(tokens)}, merges


def byte_level(tokenizer_class, vocabulary, longest):
    ids, merges = byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], vocabulary)
    return tokenizer_class(vocab=ids, merges=merges, model_max_length=longest)


def bracketed_byte_level(tokenizer_class, vocabulary, longest):
    ids, merges = byte_pairs(BRACKETED, vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
    return tokenizer_class(
        tokenizer_object=tokenizer, model_max_length=longest, model_input_names=["input_ids", "attention_mask"],
        **dict(zip(names, BRACKETED)),
    )  # fmt: skip


def modernbert_keys(sizes):
    """The keys of its own, chosen by the sizes."""
    rng = numpy.random.default_rng(list(sizes["intermediate_size"].to_bytes(4, "little")))
    biases = ["norm_bias", "attention_bias", "mlp_bias", "classifier_bias"]
    return {name: bool(rng.integers(2)) for name in biases} | {
        "classifier_pooling": ["cls", "mean"][rng.integers(2)], "local_attention": int(rng.integers(1, 12)),
        "global_attn_every_n_layers": int(rng.integers(1, 4)), "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3,
        "sep_token_id": 3,
    }  # fmt: skip


def unigram(tokenizer_class, vocabulary, longest):
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = ["▁", *CHARACTERS, "é", "余", *("▁" + word for word in WORDS)][: vocabulary - len(special)]
    scored = [(piece, 0.0) for piece in special] + [(piece, -2.0 - i / 16) for i, piece in enumerate(pieces)]
    return tokenizer_class(vocab=scored, model_max_length=longest)


@dataclass(frozen=True)
class Family:
    classes: str
    """What the names of its classes begin with."""
    saved_as: tuple
    """What they go on with: the forms in which its checkpoints come."""
    make_tokenizer: callable
    tokenizer_class: type
    padding: int = 0
    smallest_vocabulary: int = 30
    even_heads: bool = False
    all_linear: str | tuple = "all-linear"
    """What peft is told for all linear layers of the encoder."""

    def named(self, end):
        return getattr(transformers, self.classes + end)

    @property
    def counts_from(self):
        """The position of the first token."""
        return self.padding + 1 if self.padding else 0

    def config(self, sizes, **others):
        """`sizes` are named as in BERT's configuration."""
        if self.classes == "DistilBert":
            names = {
                "hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers",
                "intermediate_size": "hidden_dim", "hidden_act": "activation", "hidden_dropout_prob": "dropout",
                "attention_probs_dropout_prob": "attention_dropout", "vocab_size": "vocab_size",
                "max_position_embeddings": "max_position_embeddings",
                "classifier_dropout": "seq_classif_dropout",
            }  # fmt: skip
            sizes = {names[key]: value for key, value in sizes.items() if key in names}
        if self.classes == "ModernBert":
            others |= modernbert_keys(sizes)
            names = {
                "hidden_act": "hidden_activation", "layer_norm_eps": "norm_eps", "hidden_dropout_prob": "mlp_dropout",
            }  # fmt: skip
            del sizes["type_vocab_size"]
            sizes = {names.get(key, key): value for key, value in sizes.items()}
        if self.classes != "Electra":
            sizes = {key: value for key, value in sizes.items() if key != "embedding_size"}
        return self.named("Config")(**sizes, pad_token_id=self.padding, **others)

    def tokenizer(self, config):
        longest = config.max_position_embeddings - self.counts_from
        return self.make_tokenizer(self.tokenizer_class, config.vocab_size, longest)


HEADS = ("ForSequenceClassification", "ForMaskedLM", "Model")
FAMILIES = {
    "bert": Family("Bert", (*HEADS, "ForPreTraining"), word_piece, BertTokenizer),
    "roberta": Family("Roberta", HEADS, byte_level, RobertaTokenizer, padding=1, smallest_vocabulary=261),
    "xlm-roberta": Family("XLMRoberta", HEADS, unigram, XLMRobertaTokenizer, padding=1),
    "camembert": Family("Camembert", HEADS, unigram, CamembertTokenizer, padding=1),
    # On `pre_classifier`, which peft copies whole, it puts no branch, and `all-linear` is an error.
    "distilbert": Family(
        "DistilBert", HEADS, word_piece, DistilBertTokenizer,
        all_linear=("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    ),
    "electra": Family("Electra", (*HEADS, "ForPreTraining"), word_piece, BertTokenizer),
    "modernbert": Family(
        "ModernBert", HEADS, bracketed_byte_level, PreTrainedTokenizerFast, smallest_vocabulary=261, even_heads=True
    ),
}  # fmt: skip


def random_rows(rng, labels, count):
    """Texts of 2 to 25 words, of which the first tells the label."""

    def text(index):
        words = rng.choice(CHARACTERS + WORDS[:40] + ["é", "余", "Dr", "?"], rng.integers(1, 25))
        return " ".join([WORDS[index % len(labels)], *words])

    return [(text(i), labels[i % len(labels)]) for i in range(count)]
