r"""The five corpora of TextGCN: documents to classify, one door for all."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bitgnn.data.checksum import check, combine
from bitgnn.data.locate import DataNotFoundError, Root, search_path
from bitgnn.data.splits import Split, check_seed
from bitgnn.data.task import accuracy
from bitgnn.data.text_features import Weighting, bag_of_words

TEXTS = ("20ng", "R8", "R52", "ohsumed", "MR")
TEXT_SPLITS = ("published", "held-out")
HELD_OUT = 0.1  # The share of the training documents that validates.
FOLDER = Path("text_gcn")
SOURCE = "https://github.com/yao8839836/text_gcn"


@dataclass(frozen=True)
class TextTask:
    r"""Documents to be classified. Made by :func:`text_task`.

    Args:
        name (str): The canonical name of the corpus.
        documents (tuple[str]): The text of each document.
        y (torch.Tensor): The class of each document.
        classes (tuple[str]): The name of each class.
        trains (torch.Tensor): The boolean mask of the published training documents; all others
            test.
        split_kind (str): :obj:`"published"` or :obj:`"held-out"`.
        checksum (str): The SHA-256 of the texts and their labels, equal on all machines.
        root (pathlib.Path): The root whose files were read.

    Shapes:
        - **y**, **trains:** :math:`(N)` for :math:`N` documents
    """

    name: str
    documents: tuple[str, ...] = field(repr=False)
    y: Tensor = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    trains: Tensor = field(repr=False)
    split_kind: str
    checksum: str
    root: Path

    @property
    def num_documents(self) -> int:
        return len(self.documents)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def split(self, seed: int) -> Split:
        r"""Returns the split of a seed: always the same one, without validation documents, if
        :obj:`split_kind` is :obj:`"published"`.

        Args:
            seed (int): Draws the documents that are held out.
        """
        check_seed(seed)
        val = torch.zeros_like(self.trains)
        if self.split_kind == "published":
            return Split("published", self.trains, val, ~self.trains)
        training = self.trains.nonzero().view(-1)
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))
        val[training[order[: round(HELD_OUT * len(training))]]] = True
        return Split(f"held-out-{seed}", self.trains & ~val, val, ~self.trains)

    def features(self, split: Split, weighting: Weighting = "tfidf") -> Tensor:
        r"""Returns the bags of words of all documents, with the vocabulary of those that train
        (see :func:`bitgnn.data.text_features.bag_of_words`).

        Args:
            split (Split): The split.
            weighting (str, optional): :obj:`"tfidf"` or :obj:`"bow"`.
                (default: :obj:`"tfidf"`)

        Shapes:
            - **output:** :math:`(N, F)` for :math:`F` words, a sparse matrix (CSR)
        """
        return bag_of_words(self.documents, split.train, weighting)

    def evaluate(self, out: Tensor, mask: Tensor) -> float:
        r"""Returns the accuracy in percent; NaN where an output is, or where there is no document
        to evaluate.

        Args:
            out (torch.Tensor): The logits of all documents.
            mask (torch.Tensor): The boolean mask of the documents that count.

        Shapes:
            - **out:** :math:`(N, C)`
            - **mask:** :math:`(N)`
        """
        if out.shape != (self.num_documents, self.num_classes) or mask.shape != out.shape[:1]:
            raise ValueError(
                f"Logits for '{self.name}' have shape {(self.num_documents, self.num_classes)}, "
                f"its masks {(self.num_documents,)} (got {tuple(out.shape)} and "
                f"{tuple(mask.shape)})"
            )
        out, y = out.detach()[mask], self.y[mask]
        if y.numel() == 0 or out.isnan().any():
            return float("nan")
        return 100 * accuracy(out, y)


def text_task(name: str, root: Root = None, split: str = "published") -> TextTask:
    r"""Opens one of the corpora of `"Graph Convolutional Networks for Text Classification"
    <https://arxiv.org/abs/1809.05679>`_: :obj:`"20ng"`, :obj:`"R8"`, :obj:`"R52"`,
    :obj:`"ohsumed"` or :obj:`"MR"`.

    The files are those of the folder :obj:`data` of https://github.com/yao8839836/text_gcn: a list
    of documents, :obj:`R8.txt` (a line each: name, split and label, with tabs between), and their
    texts, :obj:`corpus/R8.txt` (a line each, in the same order), both as they are or with gzip.
    They are looked for below :obj:`text_gcn` in :obj:`root`, then in :obj:`$BITGNN_DATA`. R8 and
    R52 derive from Reuters-21578, which is for research only: bitgnn does not download them.

    Args:
        name (str): The name of the corpus, in any case.
        root (str, optional): A folder to look in first. (default: :obj:`None`)
        split (str, optional): :obj:`"published"` trains on all training documents and validates
            on none, as the papers do; :obj:`"held-out"` validates on a tenth of them, drawn by
            the seed. Both have the published test documents. (default: :obj:`"published"`)

    Raises:
        ValueError: If the name or the split is unknown, or a file is damaged.
        DataNotFoundError: If the files are nowhere.
    """
    name = _canonical(name)
    if split not in TEXT_SPLITS:
        kinds = ", ".join(f"'{kind}'" for kind in TEXT_SPLITS)
        raise ValueError(f"'{name}' has no split '{split}': choose one of {kinds}")
    files = [FOLDER / f"{name.lower() if name == 'MR' else name}.txt"]
    files.append(FOLDER / "corpus" / files[0].name)
    found = _find(name, files, search_path(root))
    contents = [_read(path) for path in found.paths]
    digests = {
        file.as_posix(): hashlib.sha256(content).hexdigest()
        for file, content in zip(files, contents, strict=True)
    }
    for path, (file, digest) in zip(found.paths, digests.items(), strict=True):
        check(file, digest, path)

    # Some texts have bytes that are not UTF-8. As Latin-1 every byte is a character, and lines
    # end at "\n" alone: str.splitlines would find more ends.
    labels, texts = ([*content.decode("latin-1").split("\n")] for content in contents)
    entries = [_entry(line, path=found.paths[0]) for line in _without_last_end(labels)]
    documents = tuple(_without_last_end(texts))
    if len(documents) != len(entries):
        raise ValueError(
            f"'{found.paths[0]}' lists {len(entries)} documents, '{found.paths[1]}' has "
            f"{len(documents)}: fetch both again from {SOURCE}"
        )
    classes = sorted({entry.label for entry in entries})
    return TextTask(
        name,
        documents,
        torch.tensor([classes.index(entry.label) for entry in entries]),
        tuple(classes),
        torch.tensor([entry.trains for entry in entries]),
        split,
        combine(digests),
        found.root,
    )


class _Found(NamedTuple):
    root: Path
    paths: list[Path]


class _Entry(NamedTuple):
    trains: bool
    label: str


def _canonical(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"The name of a corpus is a string (got {name!r})")
    names = {text.casefold(): text for text in TEXTS}
    if name.casefold() not in names:
        close = get_close_matches(name.casefold(), names, n=1)
        hint = f"did you mean '{names[close[0]]}'? " if close else ""
        raise ValueError(f"There is no corpus '{name}': {hint}there are {', '.join(TEXTS)}")
    return names[name.casefold()]


def _find(name: str, files: list[Path], roots: list[Path]) -> _Found:
    for root in roots:
        # A plain file comes before the compressed one.
        places = [[root / file, root / f"{file}.gz"] for file in files]
        paths = [next((path for path in place if path.is_file()), None) for place in places]
        present = [path for path in paths if path is not None]
        if len(present) == len(files):
            return _Found(root, present)
    looked = ", ".join(f"'{root}'" for root in roots)
    wanted = " and ".join(f"'{file.relative_to(FOLDER).as_posix()}'" for file in files)
    raise DataNotFoundError(
        f"The files of '{name}' are not in {looked}: put {wanted} from the folder 'data' of "
        f"{SOURCE} below '{roots[0] / FOLDER}', or set $BITGNN_DATA to a folder that has '{FOLDER}'"
    )


def _read(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"'{path}' is damaged or not a gzip file ({error}): delete the file and fetch it again"
        ) from None


def _entry(line: str, path: Path) -> _Entry:
    parts = line.rstrip("\r").split("\t")
    trains, tests = (len(parts) == 3 and part in parts[1] for part in ("train", "test"))
    if trains == tests:
        raise ValueError(
            f"A line of '{path}' is name, split (with 'train' or 'test' in it) and label, with "
            f"tabs between (got {line!r})"
        )
    return _Entry(trains, parts[2])


def _without_last_end(lines: list[str]) -> list[str]:
    return lines[:-1] if lines[-1] == "" else lines
