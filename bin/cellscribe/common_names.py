"""Names that single-cell data give to cell types, and that are neither names nor synonyms in the Cell Ontology."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cellscribe.model.ontology import plain_name, spelled_out

# Words that tell no type from another, and what CD4 and CD8 say already.
SAYS_NOTHING = {"cell", "positive", "pos"}
T_CELL = {"t", "ab"}
# Of two types ("NK/T", "B and T").
NOT_ONE_TYPE = re.compile(r"[/&,;|]|\band\b|\bor\b")
# In this order alone: "T NK" is the usual name of T and NK cells together.
NK_T = re.compile(r"\s*nk[\s_-]?t([\s_-]*cells?)?\s*")
# Words, in any order, without "cell", and without "T" beside CD4 or CD8.
IDS = {
    "cd4": "CL:0000624",
    "cd4 naive": "CL:0000895",
    "cd4 memory": "CL:0000897",
    "cd4 tcm": "CL:0000904",
    "cd4 central memory": "CL:0000904",
    "cd4 tem": "CL:0000905",
    "cd4 effector memory": "CL:0000905",
    "cd4 temra": "CL:0001087",
    "cd4 ctl": "CL:0000934",
    "cd4 cytotoxic": "CL:0000934",
    "cd8": "CL:0000625",
    "cd8 naive": "CL:0000900",
    "cd8 memory": "CL:0000909",
    "cd8 tcm": "CL:0000907",
    "cd8 central memory": "CL:0000907",
    "cd8 tem": "CL:0000913",
    "cd8 effector memory": "CL:0000913",
    "cd8 effector": "CL:0001050",
    "cd8 temra": "CL:0001062",
    "cd8 ctl": "CL:0000794",
    "cd8 cytotoxic": "CL:0000794",
    "t reg": "CL:0000815",
    "mait": "CL:0000940",
    "gdt": "CL:0000798",
    "gd t": "CL:0000798",
    "nk": "CL:0000623",
    "nk cd56bright": "CL:0000938",
    "nk cd56dim": "CL:0000939",
    "nkt": "CL:0000814",
    "b naive": "CL:0000788",
    "b memory": "CL:0000787",
    "mono": "CL:0000576",
    "cd14 mono": "CL:0001054",
    "cd14 monocyte": "CL:0001054",
    "classical mono": "CL:0000860",
    "cd16 mono": "CL:0000875",
    "cd16 monocyte": "CL:0000875",
    "fcgr3a mono": "CL:0000875",
    "fcgr3a monocyte": "CL:0000875",
    "non classical mono": "CL:0000875",
    "intermediate mono": "CL:0002393",
    "dc": "CL:0000451",
    "cdc1": "CL:0002394",
    "cdc2": "CL:0002399",
    "dc1": "CL:0002394",
    "dc2": "CL:0002399",
    "ilc": "CL:0001065",
    "hspc": "CL:0008001",
    "eryth": "CL:0000764",
    "smc": "CL:0000192",
    "at1": "CL:0002062",
    "at2": "CL:0002063",
    "opc": "CL:0002453",
    "astro": "CL:0000127",
    "oligo": "CL:0000128",
    "microglia": "CL:0000129",
}

# Synonyms of the Cell Ontology, as `plain_name` gives them, that in single-cell data mostly mean something else.
MISLEADING = frozenset(
    (
        # Genes, by which neurons of any region are called.
        *("vip", "vip gaba", "lamp5", "lhx6 tac3", "sst chodl", "cck cell", "ngf cell"),
        # Fast-spiking and low-threshold-spiking neurons, of the striatum alone.
        *("fs", "lts"),
        # Neurons of a crab's stomach; also intercalated cells (IC), granulocytes and monocytes (GM), ...
        *("ab", "gm", "ic", "lg", "lp", "pd", "py", "vd"),
        # Neurons of the retina and regulatory B cells; also numbers of clusters.
        *("c41", "c42", "c43", "g5", "g19", "g24", "b10 cell"),
        # A fly's photoreceptors; also numbers of clusters.
        *(f"r{number} cell" for number in range(1, 9)),
        "arc",  # pericyte; also the arcuate nucleus and a gene
        "crypt cell",  # of a fish's nose; also of the gut
        "dp cell",  # double-positive thymocyte; also of the dermal papilla
        "epc",  # endothelial progenitor; also of the ectoplacental cone
        "gbc",  # globular bushy cell; also globose basal cell of the nose
        "ipc",  # plasmacytoid dendritic cell; also intermediate progenitor of neurons
        "k cell",  # koniocellular neuron; also of the gut
        "lc",  # Langerhans cell; also Leydig cell and the locus coeruleus
        "p cell",  # of the heart's sinus node; also of the retina
        "pe cell",  # of the ciliary epithelium; also of the primitive endoderm
        "stalk cell",  # of a fly's ovary; also of a growing vessel
        "vec",  # endothelial cell of heart valves; also of all vessels
        # Conventional and plasmacytoid dendritic cells once, two types of the former now.
        *("dc1", "dc2", "type 1 dc", "type 2 dc"),
    )
)


def words_of(label: str) -> frozenset[str]:
    """The words of a label that tell its type from others."""
    plain = plain_name(label).replace("alpha beta", "ab").replace("gamma delta", "gd")
    words = set(plain.replace("+", " ").split()) - SAYS_NOTHING
    return frozenset(words - T_CELL if words & {"cd4", "cd8"} else words)


BY_WORDS = {frozenset(words.split()): cl_id for words, cl_id in IDS.items()}


def common_id(label: str, known: Mapping[str, str]) -> str:
    """The Cell Ontology id of a common name, or of one that lacks but "cell"; "" for others, and for one that says
    what the cells are not ("CD4-", "FCGR3A- mono").

    known: the ontology's own names and synonyms, as `plain_name` gives them, with their ids.
    """
    written, name = spelled_out(label), plain_name(label)
    if "-" in name or NOT_ONE_TYPE.search(written):
        return ""
    if NK_T.fullmatch(written):
        return IDS["nkt"]
    says_enough = len(name) > 1 or name in ("b", "t")
    return BY_WORDS.get(words_of(label)) or (known.get(f"{name} cell", "") if says_enough else "")
