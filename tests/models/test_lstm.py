"""The model of texts, against torch's packed sequences."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from nlbench import models


@pytest.fixture
def network():
    """Return a model of texts of 9 words at most, of a vocabulary of 30, in evaluation mode."""
    torch.manual_seed(0)
    return models.build("lstm", 3, (9, 30)).eval()


def texts(*lengths):
    """Draw a text of each length, (B, 9) int64 with padding at the end."""
    words = torch.randint(1, 30, (len(lengths), 9), generator=torch.Generator().manual_seed(1))
    return words * (torch.arange(9) < torch.tensor(lengths)[:, None])


def test_the_logits_are_those_of_packed_sequences(network):
    words = texts(9, 1, 4)
    vectors = network.embedding(words)
    lengths = torch.tensor([9, 1, 4])
    packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
    _, (last, _) = network.lstm(packed)

    torch.testing.assert_close(network(words), network.head(last[0]))


def test_padding_changes_neither_the_logits_nor_the_gradients(network):
    words = texts(4, 2)
    wider = torch.nn.functional.pad(words, (0, 50))
    found = []
    for tokens in (words[:, :4], wider):
        network.zero_grad()
        logits = network(tokens)
        logits.logsumexp(1).sum().backward()
        found.append((logits.detach(), [p.grad.clone() for p in network.parameters()]))

    torch.testing.assert_close(found[0], found[1])
    assert network.embedding.weight.grad[0].abs().sum() == 0


def test_a_text_does_not_depend_on_the_others_of_the_batch(network):
    words = texts(9, 0, 4)
    alone = torch.cat([network(row[None]) for row in words])
    torch.testing.assert_close(network(words), alone)


def test_a_text_without_words_has_finite_logits(network):
    assert network(texts(0)).isfinite().all()


def test_dropout_leaves_out_a_position_of_all_word_vectors_of_a_text(network):
    """Check it by an LSTM that is replaced by one that shows its inputs."""
    network.train()
    seen = []
    network.lstm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    torch.manual_seed(0)
    network(texts(9, 9))

    left_out = seen[0] == 0
    assert torch.equal(left_out, left_out[:, :1].expand_as(left_out))
    assert 0 < left_out.float().mean() < 0.5


def test_mixed_texts_are_refused_with_the_reason(network):
    words = texts(9, 4)
    with pytest.raises(TypeError, match="sets mixes_inputs = True, and cannot train on texts"):
        network(0.5 * words + 0.5 * words.flip(0))
