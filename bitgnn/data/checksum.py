r"""Recognises raw files by their SHA-256 checksums."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# What PyG reads of an archive of a sparse graph. The rest are names for people.
_GRAPH_ARRAYS = [
    *("adj_data", "adj_indices", "adj_indptr", "adj_shape"),
    *("attr_data", "attr_indices", "attr_indptr", "attr_shape"),
    "labels",
]


def file_digest(path: Path) -> str:
    r"""Returns the checksum of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def npz_digest(path: Path) -> str:
    r"""Returns the checksum of the sparse graph in an :obj:`.npz` archive.

    It does not depend on how the archive was compressed, nor on the width of its numbers.
    """
    digest = hashlib.sha256()
    try:
        with np.load(path) as archive:
            for name in _GRAPH_ARRAYS:
                array = archive[name]
                _update(digest, name, array.astype("<f8" if array.dtype.kind == "f" else "<i8"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"'{path}' is damaged or not an archive of a sparse graph ({error}): "
            f"delete the file and fetch it again"
        ) from None
    return digest.hexdigest()


def array_digest(**arrays: np.ndarray) -> str:
    r"""Returns the checksum of named arrays."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        _update(digest, name, array.astype(array.dtype.newbyteorder("<")))
    return digest.hexdigest()


def combine(digests: Mapping[str, str]) -> str:
    r"""Returns one checksum for several files, whatever their order."""
    lines = "".join(f"{digest}  {file}\n" for file, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def check(file: str, digest: str, path: Path) -> None:
    r"""Raises if a file is known and is not what it should be.

    Args:
        file (str): The file's place below a root, with forward slashes.
        digest (str): The checksum found.
        path (pathlib.Path): The file, for the message.
    """
    expected = KNOWN.get(file, digest)
    if digest != expected:
        raise ValueError(
            f"The checksum of '{path}' is {digest}, expected {expected}: "
            f"delete the file and fetch it again"
        )


def _update(digest: "hashlib._Hash", name: str, array: np.ndarray) -> None:
    digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).data)


def _parse(text: str) -> dict[str, str]:
    known, folder = {}, ""
    for line in text.split("\n"):
        digest, _, name = line.partition("  ")
        if name:
            known[f"{folder}/{name}"] = digest
        else:
            folder = line
    return known


# Amazon and Coauthor: of the graph (npz_digest). text_gcn: of the text, unpacked. All others: of
# the bytes.
KNOWN = _parse("""\
Amazon/Computers/raw
d87861f65e0b38f2a6f3351072a2059a019c9230595afe9174cb46d7ee4471ea  amazon_electronics_computers.npz
Coauthor/CS/raw
f7d68a259970a196aaa2a84d509251bcf304411f61c307bb9c2e487b22ab4429  ms_academic_cs.npz
Planetoid/CiteSeer/raw
2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668  ind.citeseer.allx
f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95  ind.citeseer.ally
d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7  ind.citeseer.graph
2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4  ind.citeseer.test.index
539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21  ind.citeseer.tx
55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce  ind.citeseer.ty
d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6  ind.citeseer.x
8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924  ind.citeseer.y
Planetoid/Cora/raw
9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543  ind.cora.allx
2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71  ind.cora.ally
58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d  ind.cora.graph
297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875  ind.cora.test.index
b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a  ind.cora.tx
41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad  ind.cora.ty
23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab  ind.cora.x
94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1  ind.cora.y
Planetoid/PubMed/raw
508e538e2abdccdd54c4d3e9f49d638b4af7107d85845f66ddea5a5152658b7e  ind.pubmed.allx
0c37bbe3b5014ec365e9d393cf4791925e5ed94fb194305d74f064a8d7b50f0e  ind.pubmed.ally
5b89f0036ca22909471f1e6558eb42fa06e0c730a577bde5b058b40638f81dc9  ind.pubmed.graph
b101d421688bbaecbd82e8a18f1e282378d6830f3a37666f28ebc47f844341b5  ind.pubmed.test.index
4eb5f5d0f30f26497eb0ac6ac9719d09c67e284f1ed0385c93f3ef27a671da3d  ind.pubmed.tx
ee2e0d4819d9fbcc403689c3bf2e49face401b605932f093bc58ab6461130fdd  ind.pubmed.ty
fbe9cb5c47200d1b7769a26e579be3b7130b556831f9d850e77c4c74f2599b33  ind.pubmed.x
e6c807633307a07ed659249006536a147c7999c797f11a2560752990181b41b3  ind.pubmed.y
WebKB/texas/raw
0fe85183243a78cbee9b85a684f8240963d04d1020d10e9cd2b8cfb25e33b476  out1_graph_edges.txt
cf5a3ca346cdd1210b8342e22517fcbbdae658065b7a3145f59350e50e6236a3  out1_node_feature_label.txt
7ba77bf7a8856fcc0ab15623a611b8cdce994e820f577da914123fb4f45272b0  texas_split_0.6_0.2_0.npz
21cc244a96e3c51ad7993afb4dd227f90e467d82b964bb42d7d9fc500a6ef87f  texas_split_0.6_0.2_1.npz
b9e96a699ccf3a4c31ffbd03e52b25570889833425d20fa44e06c37b327cf61e  texas_split_0.6_0.2_2.npz
1a7deeb1285009789d5e6045d7e39f7d019c9223d9a75a2b7ce5e26d33b51f63  texas_split_0.6_0.2_3.npz
b5419ff3fe31adcae66fdb085d4f47d0b188e9436ab59f438632af969aafc674  texas_split_0.6_0.2_4.npz
68405fd1b9ff6105d99717220ecbd198785e338bf4a73abee722bbc9703d2667  texas_split_0.6_0.2_5.npz
8ad78b973164e70e5ac0d282e79adcbc6006e373909fbdfd72a13131e09040b8  texas_split_0.6_0.2_6.npz
a84bcbf997365bddf5fdf72ed49dc7e435e475f8c6210f8cdee7c8581a2bd6df  texas_split_0.6_0.2_7.npz
65ba65f296f91d40d2d7d3c9369b67415094a7e254c6eee48cd6d6531c586fdf  texas_split_0.6_0.2_8.npz
4306981d654ad8835c000c1f73fb6c1e60dfe99e26c13a6073f3b0f4cc3ce6ee  texas_split_0.6_0.2_9.npz
text_gcn
5ec2cc32d698f77f64abe8f9d6e2578b623d85a837d9f04b8387dfee7da83839  20ng.txt
dd0c08ca54cb51be909f309525643fdc235efecf674a91d854306b939badd239  R52.txt
4ab8362c508bf7b1c591bca4e4d72ff6e9ff7a730a94cb0a5dfddf237a7cc025  R8.txt
184c1b3b7f9695174fcf949738a661ba9d798b0e500721d0644daab4d095e134  mr.txt
724b8ed25eb3d99b90b86fdc4ef5e2450b386ff0ba348afe38f420cd61eccc16  ohsumed.txt
text_gcn/corpus
e56bbbaadc1283e4020d38dff5160381d93da04e68571b8bd0b70c47da9544b2  20ng.txt
926453a3a242f0fe61a1a99ab1d3e4e193daf3bc926f3b61b9fc77718c137efc  R52.txt
c2758703ba8b3e29162e8e9f606e9a1f032c408cd9d76380f02c8ba16422cac7  R8.txt
2ce386f81c1ebd45fd2c0d2a41e8702e78f2dbeeb88fc8f3cff680211f303689  mr.txt
c117cc9f36c3c121793f85955b47fba1bbb58a8eb051c638e3611544f11f5032  ohsumed.txt
""")
