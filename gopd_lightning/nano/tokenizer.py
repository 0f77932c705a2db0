"""The nano tokenizer: a small BPE in which every digit is a token and text survives the round trip."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

EOS, PAD = "<eos>", "<pad>"
VOCABULARY = 320
CONTEXT = 256
# A digit alone; the newline that ends a prompt alone, so that prompt and response are tokenised the same
# together and apart; white space together with the word or signs after it; other white space.
_PIECES = r"\d|\n(?! )|\s*[^\s\d]+|\s+"


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Train the tokenizer.

    Args:
        texts: Texts that hold every character that will ever be encoded.
        vocabulary: Largest number of tokens, the two special ones included.

    Returns:
        A tokenizer that adds no special tokens by itself.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    bpe.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[EOS, PAD], show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
