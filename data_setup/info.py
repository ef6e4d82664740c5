"""The data sets: what they are, who may use them, where their files are.

`INFO` is the one table; the commands read names, links and checksums from it.
"""

import argparse
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace

HELP = "list the data sets: classes, licences, files, citations"
WIDTH = 100

PAPER_CLASSES = ("MEL", "NV", "BCC", "BKL")
"""The four classes of the paper's protocol."""

ISIC_BUCKET = "https://isic-archive.s3.amazonaws.com/challenges/2019/"
DATAVERSE = "https://dataverse.harvard.edu/api/access/datafile/"


@dataclass(frozen=True)
class File:
    """A file that a publisher offers."""

    name: str  # what it is called in a folder of downloads
    url: str
    size: int | None = None  # in bytes; None where it is not known
    checksum: str | None = None  # "algorithm:hexadecimal digits", if its publisher states one


@dataclass(frozen=True)
class Class:
    """A class of a data set. Several classes of a publisher may have one label."""

    label: str  # what manifests call it; ISIC's abbreviation where there is one
    name: str
    images: int
    code: str = ""  # what the publisher's own table calls it, if it is not the label


@dataclass(frozen=True)
class DataSet:
    """What you must know about a data set before you use it."""

    title: str
    about: str
    licence: str
    restrictions: str  # what the licence asks for, in plain words
    classes: tuple[Class, ...] = ()  # in ISIC's order; none where the user's images decide
    citation: str = ""
    home: str = ""  # page of the publisher, if there is one
    files: tuple[File, ...] = ()  # what is downloaded
    elsewhere: str = ""  # how to get the files where no download is possible

    @property
    def labels(self) -> dict[str, str]:
        """The publisher's own class names -> labels of the manifest."""
        return {one.code or one.label: one.label for one in self.classes}

    @property
    def record(self) -> dict[str, str]:
        """What ``dataset.json`` says about the origin."""
        names = ("title", "citation", "licence", "restrictions", "home")
        return {name: text for name in names if (text := getattr(self, name))}


NON_COMMERCIAL = "not for commercial use; name the source"

_HAM_CITATION = (
    "P. Tschandl, C. Rosendahl, H. Kittler: The HAM10000 dataset, a large collection of "
    "multi-source dermatoscopic images of common pigmented skin lesions. "
    "Scientific Data 5, 180161 (2018). doi:10.1038/sdata.2018.161"
)

_HAM_CLASSES = (
    Class("MEL", "melanoma", 1113, "mel"),
    Class("NV", "melanocytic naevus", 6705, "nv"),
    Class("BCC", "basal cell carcinoma", 514, "bcc"),
    Class("BKL", "benign keratosis-like lesion", 1099, "bkl"),
    Class("AKIEC", "actinic keratosis, intraepithelial carcinoma", 327, "akiec"),
    Class("DF", "dermatofibroma", 115, "df"),
    Class("VASC", "vascular lesion", 142, "vasc"),
)

# Not the archives of ISIC 2018 Task 3: those come without masks and checksums. The Dataverse
# converts tables; the checksum is that of the original.
_HAM_FILES = """
HAM10000_metadata.csv     4338392?format=original     690218  8f85fb1aa29d80a2797247e434deb79d
HAM10000_segmentations_lesion_tschandl.zip 3838943  10808743  6e8d252e09cfdb0189199f15985a5b84
HAM10000_images_part_1.zip                3172585 1366522108  4639bfa73ab251610530a97c898e6e46
HAM10000_images_part_2.zip                3172584 1403566547  da43d6cc50f6613013be07e8986b384b
"""

# Sizes: the byte counts that the servers announce. Checksums: the MD5 sums on the pages of
# the Harvard Dataverse. ISIC states none for its challenge files.
INFO: dict[str, DataSet] = {
    "synthetic": DataSet(
        title="derm-hash atlas",
        about="Dermoscopic images drawn by a program, with exact lesion masks; no patients.",
        licence="MIT",
        restrictions="use it as you like; it says nothing about real skin",
        classes=(
            Class("MEL", "drawn melanoma", 500),
            Class("NV", "drawn naevus", 500),
            Class("BCC", "drawn basal cell carcinoma", 500),
            Class("BKL", "drawn benign keratosis", 500),
        ),
    ),
    "ham10000": DataSet(
        title="HAM10000",
        about="10,015 dermoscopic images of 7,470 lesions from Vienna and Queensland, each with "
        "a lesion mask.",
        citation=_HAM_CITATION,
        licence="CC BY-NC-SA 4.0",
        restrictions=f"{NON_COMMERCIAL}; share derived work under the same licence (some copies "
        "state CC BY-NC 4.0: the page of your copy decides)",
        home="https://doi.org/10.7910/DVN/DBW86T",
        classes=_HAM_CLASSES,
        files=tuple(
            File(name, f"{DATAVERSE}{number}", int(size), f"md5:{digest}")
            for name, number, size, digest in map(str.split, _HAM_FILES.strip().splitlines())
        ),
        elsewhere="download these files with a browser from https://doi.org/10.7910/DVN/DBW86T "
        "into one folder and name it with --archives DIR",
    ),
    "isic2019": DataSet(
        title="ISIC 2019",
        about="25,331 dermoscopic images: the training set of the ISIC challenge of 2019, with "
        "images of BCN20000, HAM10000 and MSK.",
        citation=f"BCN20000: M. Combalia et al.: BCN20000: Dermoscopic Lesions in the Wild. "
        f"arXiv:1908.02288 (2019). HAM10000: {_HAM_CITATION} MSK: N. Codella et al.: Skin Lesion "
        "Analysis Toward Melanoma Detection: A Challenge at the 2017 International Symposium on "
        "Biomedical Imaging. arXiv:1710.05006 (2017)",
        licence="CC BY-NC 4.0",
        restrictions=NON_COMMERCIAL,
        home="https://challenge.isic-archive.com/data/#2019",
        classes=(
            Class("MEL", "melanoma", 4522),
            Class("NV", "melanocytic naevus", 12875),
            Class("BCC", "basal cell carcinoma", 3323),
            Class("AK", "actinic keratosis", 867),
            Class("BKL", "benign keratosis", 2624),
            Class("DF", "dermatofibroma", 239),
            Class("VASC", "vascular lesion", 253),
            Class("SCC", "squamous cell carcinoma", 628),
        ),
        files=tuple(
            File(name, f"{ISIC_BUCKET}{name}", size)
            for name, size in (
                ("ISIC_2019_Training_GroundTruth.csv", 1_291_479),
                ("ISIC_2019_Training_Metadata.csv", 1_214_351),
                ("ISIC_2019_Training_Input.zip", 9_771_618_190),
            )
        ),
        elsewhere="get the images with ISIC's own tool, `pip install isic-cli` and then `isic "
        "image download --collections 65 DIR/ISIC_2019_Training_Input`, put the two CSV files of "
        "https://challenge.isic-archive.com/data/#2019 into DIR, and use --archives DIR",
    ),
    "ph2": DataSet(
        title="PH2",
        about="200 dermoscopic images of melanocytic lesions from Matosinhos, 768 x 560 pixels, "
        "each with a lesion mask.",
        citation="T. Mendonça, P. M. Ferreira, J. S. Marques, A. R. S. Marçal, J. Rozeira: PH2 - A "
        "dermoscopic image database for research and benchmarking. EMBC 2013, 5437-5440. "
        "doi:10.1109/EMBC.2013.6610779",
        licence="for research and benchmarking",
        restrictions="its authors state no open licence, so use it for nothing else",
        home="https://www.fc.up.pt/addi/ph2%20database.html",
        classes=(
            Class("MEL", "melanoma", 40, "melanoma"),
            Class("NV", "common melanocytic naevus", 80, "common nevus"),
            Class("NV", "atypical melanocytic naevus", 80, "atypical nevus"),
        ),
        elsewhere="it has no open download: get the folder PH2Dataset from its authors",
    ),
    "dermamnist": DataSet(
        title="DermaMNIST",
        about="The 10,015 images of HAM10000 as squares of 28, 64, 128 or 224 pixels, without "
        "lesion ids: the quickest real data.",
        citation="J. Yang et al.: MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D "
        f"biomedical image classification. Scientific Data 10, 41 (2023). {_HAM_CITATION}",
        licence="CC BY-NC 4.0",
        restrictions=NON_COMMERCIAL,
        home="https://medmnist.com",
        classes=tuple(replace(c, code=n) for c, n in zip(_HAM_CLASSES, "4512036", strict=True)),
        elsewhere="download the file from https://medmnist.com with a browser and name its folder "
        "with --archives DIR",
    ),
    "folder": DataSet(
        title="your own images",
        about="A folder with one folder of images for each class.",
        licence="the one that your images have",
        restrictions="medical images are personal data, so follow the rules of your institution",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no options."""


def run(args: argparse.Namespace) -> None:
    print("\n\n".join(describe(name) for name in INFO))
    print(
        "\nNotebooks 00 to 08 start with the atlas; name another prepared folder in their "
        "parameter data."
    )


def images(classes: Iterable[Class]) -> int:
    """How many images the classes have together."""
    return sum(one.images for one in classes)


def describe(name: str) -> str:
    """One data set as text of at most `WIDTH` columns (links are not broken)."""
    one = INFO[name]
    parts = [
        ("", one.about),
        ("licence", f"{one.licence}: {one.restrictions}"),
        ("cite", one.citation),
        ("home", one.home),
        ("by hand", one.elsewhere),
    ]
    lines = [f"{name} - {one.title}"]
    for label, text in parts:
        first, later = (f"  {label:<7}  ", " " * 11) if label else ("  ", "  ")
        whole = {"break_long_words": False, "break_on_hyphens": False}
        lines += textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=later, **whole)
    if one.classes:
        lines.append(f"  classes  {images(one.classes):>6,} images")
        lines += [f"           {c.images:>6,}  {c.label:<14}  {c.name}" for c in one.classes]
    for file in files_of(name):
        size = f", {file.size:,} bytes" if file.size else ""
        checksum = file.checksum.replace(":", " ", 1) if file.checksum else "no checksum published"
        lines += [f"  file     {file.name}{size}", f"{'':11}{file.url}", f"{'':11}{checksum}"]
    return "\n".join(lines)


def files_of(name: str) -> tuple[File, ...]:
    """The files to download for a data set; for DermaMNIST, as the medmnist package lists them."""
    if name != "dermamnist":
        return INFO[name].files
    # Imported here, because medmnist makes a folder in the home directory when it is loaded.
    from medmnist import INFO as PACKAGE

    table = PACKAGE["dermamnist"]
    return tuple(
        File(f"dermamnist{end}.npz", table[f"url{end}"], checksum=f"md5:{table[f'MD5{end}']}")
        for end in ("", "_64", "_128", "_224")
    )
