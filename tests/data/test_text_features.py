import math
import re
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitgnn.data import text_features
from bitgnn.data.text_features import bag_of_words

WORDS = st.sampled_from(["a", "I", "Stock", "stock", "it's", "caf\xe9", "2", ",", "--", "\x85"])
CORPORA = st.lists(st.lists(WORDS, max_size=8).map(" ".join), min_size=3, max_size=8)


def reference(documents, train, idf):
    r"""The formula, word by word."""
    counts = [Counter(re.findall(r"\w+|[^\w\s]", text.lower())) for text in documents]
    trained = [count for count, trains in zip(counts, train, strict=True) if trains]
    found_in = Counter(word for count in trained for word in count)
    words = sorted(word for word, documents_of in found_in.items() if documents_of >= 2)
    x = torch.zeros(len(documents), len(words))
    for row, count in zip(x, counts, strict=True):
        for i, word in enumerate(words):
            if word in count:
                inverse = 1 + math.log((1 + len(trained)) / (1 + found_in[word])) if idf else 1
                row[i] = (1 + math.log(count[word])) * inverse
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-12)


@pytest.mark.parametrize("weighting", ["tfidf", "bow"])
@given(CORPORA, st.integers(0, 255))
def test_equals_its_formula(weighting, documents, mask):
    train = torch.tensor([bool(mask >> i & 1) for i in range(len(documents))])
    expected = reference(documents, train.tolist(), weighting == "tfidf")
    if expected.size(1) == 0:
        with pytest.raises(ValueError, match="No word is in 2 of the"):
            bag_of_words(documents, train, weighting)
        return
    x = bag_of_words(documents, train, weighting)
    assert x.layout == torch.sparse_csr and x.dtype == torch.float32
    torch.testing.assert_close(x.to_dense(), expected)


def test_keeps_the_most_frequent_words(monkeypatch):
    monkeypatch.setattr(text_features, "MAX_WORDS", 2)
    x = bag_of_words(["a b c", "a b c", "a b", "d"], torch.tensor([True, True, True, True]))
    assert x.shape == (4, 2)
    assert (x.to_dense() != 0).sum(dim=1).tolist() == [2, 2, 2, 0]


def test_user_errors():
    with pytest.raises(ValueError, match=r"'weighting' must be one of 'tfidf', 'bow' \(got 'tf'"):
        bag_of_words(["a", "a"], torch.tensor([True, True]), "tf")
    with pytest.raises(ValueError, match=r"boolean mask of 2 documents.*int64"):
        bag_of_words(["a", "a"], torch.tensor([1, 1]))
