r"""Bags of words: documents as the rows of a sparse matrix."""

from collections.abc import Sequence
from itertools import compress
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bitgnn.kernels.sparse import from_scipy

Weighting = Literal["tfidf", "bow"]
WEIGHTINGS = ("tfidf", "bow")

# Chosen on held-out training documents, all corpora alike; docs/text.md has the numbers.
# Words and, as in BERT's basic tokenizer, every other mark by itself.
TOKEN_PATTERN = r"\w+|[^\w\s]"
# A word of a single training document says nothing of others.
MIN_DOCUMENTS = 2
# As many as bert-base-uncased has, so that no embedding is larger than the papers'.
MAX_WORDS = 30_522


def bag_of_words(documents: Sequence[str], train: Tensor, weighting: Weighting = "tfidf") -> Tensor:
    r"""Counts the words of documents,

    .. math::
        x_{dw} = \frac{(1 + \ln n_{dw}) \, i_w}{\lVert \cdot \rVert_2} \quad
        \textrm{where } n_{dw} > 0, \textrm{ else } 0,

    with :math:`n_{dw}` the count of word :math:`w` in document :math:`d` and, with
    :obj:`"tfidf"`, :math:`i_w = 1 + \ln \frac{1 + N}{1 + N_w}` for :math:`N_w` of :math:`N`
    training documents that have the word; :math:`i_w = 1` with :obj:`"bow"`. Every row has length
    1, or is empty.

    The vocabulary and :math:`i_w` are those of the training documents alone. Letters count as
    small ones, marks that are no part of a word are words; words of a single document are left
    out, and of the others the 30,522 most frequent are kept.

    Args:
        documents (list[str]): The texts.
        train (torch.Tensor): The boolean mask of the training documents.
        weighting (str, optional): :obj:`"tfidf"`, or :obj:`"bow"` for counts alone.
            (default: :obj:`"tfidf"`)

    Raises:
        ValueError: If there is no such weighting, or no word in two training documents.

    Shapes:
        - **train:** :math:`(N)`
        - **output:** :math:`(N, F)`, a sparse matrix (CSR)
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # Takes a second to load.

    if weighting not in WEIGHTINGS:
        choices = ", ".join(repr(choice) for choice in WEIGHTINGS)
        raise ValueError(f"'weighting' must be one of {choices} (got {weighting!r})")
    if train.dtype != torch.bool or train.shape != (len(documents),):
        raise ValueError(
            f"'train' must be a boolean mask of {len(documents)} documents "
            f"(got {train.dtype} with shape {tuple(train.shape)})"
        )
    vectorizer = TfidfVectorizer(
        token_pattern=TOKEN_PATTERN,
        min_df=MIN_DOCUMENTS,
        max_features=MAX_WORDS,
        use_idf=weighting == "tfidf",
        sublinear_tf=True,
        dtype=np.float32,
    )
    try:
        vectorizer.fit(compress(documents, train.tolist()))
    except ValueError as error:  # In scikit-learn's own words.
        raise ValueError(
            f"No word is in {MIN_DOCUMENTS} of the {int(train.sum())} training documents "
            f"({error}): there is nothing to learn from"
        ) from None
    return from_scipy(vectorizer.transform(documents))
