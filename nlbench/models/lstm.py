"""Recurrent networks for texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The number of the padding, which stands after a text's words.
PADDING = 0
# giorgiop/loss-correction, models.py: also the width of the layer after the LSTM.
IMDB_WIDTH, IMDB_DROPOUT, IMDB_HEAD_DROPOUT, IMDB_UNIFORM = 512, 0.8, 0.5, 0.05


def lstm(
    num_classes: int, text_shape: tuple[int, ...], *, width: int = 128, dropout: float = 0.2
) -> nn.Module:
    """Word vectors and an LSTM of 128, and a linear layer, for texts: 0.8M parameters.

    Our own. The last state of a text is that after its last word, so that padding has no effect.

    Args:
        width: of the word vectors and of the LSTM.
        dropout: of positions of the word vectors.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    _, vocabulary = text_shape
    return TextLSTM(vocabulary, width, width, dropout, nn.Linear(width, num_classes))


def imdb_lstm(num_classes: int, text_shape: tuple[int, ...]) -> nn.Module:
    """Word vectors, an LSTM and a dense layer of 512 each, of the Forward paper: 4.9M parameters.

    As in the authors' code (Patrini et al., CVPR 2017; giorgiop/loss-correction, LSTMModel), which
    is for Keras. There padding stands in front of a text and is read like a word, the gates have a
    hard sigmoid, and He's normal is truncated.
    """
    _, vocabulary = text_shape
    width = IMDB_WIDTH
    dense, last = nn.Linear(width, width), nn.Linear(width, num_classes)
    head = nn.Sequential(dense, nn.Dropout(IMDB_HEAD_DROPOUT), nn.ReLU(), last)
    network = TextLSTM(vocabulary, width, width, IMDB_DROPOUT, head)

    for layer in (dense, last):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    from_words, recurrent, bias, other_bias = network.lstm.parameters()
    for weight in (network.embedding.weight, from_words):
        nn.init.uniform_(weight, -IMDB_UNIFORM, IMDB_UNIFORM)
    nn.init.orthogonal_(recurrent)
    nn.init.zeros_(bias)
    nn.init.zeros_(other_bias)
    with torch.no_grad():
        network.embedding.weight[PADDING] = 0
        # Keras begins with an open forget gate, the second of torch's four.
        bias[width : 2 * width] = 1
    return network


class TextLSTM(nn.Module):
    """An LSTM over word vectors, and a head on its state after the last word of each text.

    Args:
        vocabulary: the number of words, of which number 0 is padding.
        embedding: width of the word vectors.
        hidden: width of the LSTM.
        dropout: the probability with which a position of all word vectors of a text is left out.
        head: state (B, hidden) -> logits.
    """

    def __init__(
        self, vocabulary: int, embedding: int, hidden: int, dropout: float, head: nn.Module
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=PADDING)
        self.dropout = nn.Dropout1d(dropout)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.head = head

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, C) of texts (B, L) int64, whose padding stands at the end."""
        if tokens.is_floating_point():
            raise TypeError(
                f"a text is int64 numbers of words, got {tokens.dtype}: a method that mixes inputs "
                "sets mixes_inputs = True, and cannot train on texts"
            )
        vectors = self.embedding(tokens)
        states, _ = self.lstm(self.dropout(vectors.mT).mT)

        # The states before the padding do not depend on it. Unlike packed sequences, this never
        # waits for the device. A text without words has the state after its first padding.
        last = (tokens != PADDING).sum(1).clamp(min=1) - 1
        logits: Tensor = self.head(states[torch.arange(len(tokens), device=tokens.device), last])
        return logits
