"""The model of texts, against torch's packed sequences."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from nlbench import models
from nlbench.errors import SuiteError


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


def test_the_network_for_imdb_is_that_of_the_papers_code():
    """Check numbers of weights by the layers' widths, and how Keras draws the first ones."""
    torch.manual_seed(0)
    network = models.build("imdb_lstm", 2, (400, 5000))
    lstm = 4 * (512 * 512 + 512 * 512 + 2 * 512)
    dense = 512 * 512 + 512 + 512 * 2 + 2
    assert sum(p.numel() for p in network.parameters()) == 5000 * 512 + lstm + dense

    assert network.embedding.weight.abs().max() <= 0.05
    assert network.embedding.weight[0].abs().sum() == 0
    bias = network.lstm.bias_ih_l0 + network.lstm.bias_hh_l0
    assert bias.view(4, 512).unique(dim=1).flatten().tolist() == [0, 1, 0, 0]
    recurrent = network.lstm.weight_hh_l0
    torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(512), rtol=0, atol=1e-4)

    words = texts(9, 4)
    wider = torch.nn.functional.pad(words, (0, 30))
    network.eval()
    torch.testing.assert_close(network(words), network(wider))


@pytest.mark.parametrize(("option", "message"), [("width=0", "at least 1"), ("dropout=1.0", "in")])
def test_wrong_options_are_refused(option, message):
    with pytest.raises(SuiteError, match=f"must be {message}"):
        models.build(f"lstm-{option}", 2, (9, 30))
    assert models.build("lstm-width=16-dropout=0.5", 2, (9, 30)).lstm.hidden_size == 16


def test_mixed_texts_are_refused_with_the_reason(network):
    words = texts(9, 4)
    with pytest.raises(TypeError, match="sets mixes_inputs = True, and cannot train on texts"):
        network(0.5 * words + 0.5 * words.flip(0))
