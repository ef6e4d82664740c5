"""Miniature data sets in their publishers' layouts."""

import csv
import zipfile

import numpy as np
from helpers import encoded, noise
from PIL import Image


def blob(seed, width=20, height=15):
    """A binary mask of mode L."""
    y, x = np.mgrid[:height, :width]
    radius = 3 + seed % 4
    return Image.fromarray((((x - 10) ** 2 + (y - 7) ** 2 < radius**2) * 255).astype(np.uint8))


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


class Ham:
    """A miniature HAM10000: its records, and its files in a folder."""

    COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")

    def __init__(self, folder):
        self.folder = folder
        diagnoses = ["nv"] * 8 + ["mel"] * 5 + ["bcc"] * 4 + ["bkl"] * 4 + ["akiec", "df", "vasc"]
        self.records = []
        for lesion, dx in enumerate(diagnoses):
            for _ in range(1 + lesion % 2):
                image_id = f"ISIC_{24306 + len(self.records):07d}"
                row = (f"HAM_{lesion:07d}", image_id, dx, "histo", "80.0", "male", "scalp")
                self.records.append(dict(zip(self.COLUMNS, row, strict=True)))
        # The publisher's table is not sorted by image.
        self.table = self.records[::-1]

    @property
    def ids(self):
        return [record["image_id"] for record in self.records]

    def image(self, image_id):
        return encoded(noise(self.ids.index(image_id)), "JPEG")

    def mask(self, image_id):
        return encoded(blob(self.ids.index(image_id)), "PNG")

    def write_metadata(self, name="HAM10000_metadata.csv", delimiter=","):
        with (self.folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS, delimiter=delimiter)
            writer.writeheader()
            writer.writerows(self.table)

    def write_images(self, name="HAM10000_images_200x150.zip", ids=None, change=None, prefix=""):
        members = {f"{prefix}{i}.jpg": self.image(i) for i in ids or self.ids}
        write_zip(self.folder / name, members | (change or {}))

    def write_masks(self, name="HAM10000_masks_200x150.zip", prefix="", extra=None):
        members = {f"{prefix}{i}_segmentation.png": self.mask(i) for i in self.ids}
        write_zip(self.folder / name, members | (extra or {}))


class Ph2:
    """A miniature PH2: its files by their paths."""

    HEADER = (
        "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network "
        "| Dots/Globules | Streaks | Regression Areas | Blue-Whitish Veil ||     Colors ||"
    )
    IMAGES = "PH2Dataset/PH2 Dataset images"
    ROW = "|| {} || {:>22} || {:>18} || 0 |  T |  A |  A |  A |  A ||     4    ||"
    LEGEND = (
        "\n\nLegends:\nClinical Diagnosis:\n0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma\n"
    )

    def __init__(self):
        codes = {f"IMD{k:03d}": str(k % 5 // 2) for k in range(3, 43)}
        self.codes = dict(sorted(codes.items(), key=lambda item: item[1]))
        self.files = {}
        for k, name in enumerate(self.codes):
            folder = f"{self.IMAGES}/{name}"
            self.files |= {
                f"{folder}/{name}_Dermoscopic_Image/{name}.bmp": encoded(noise(k), "BMP"),
                f"{folder}/{name}_lesion/{name}_lesion.bmp": encoded(blob(k).convert("1"), "BMP"),
                f"{folder}/{name}_roi/{name}_R1_Label4.bmp": encoded(blob(k), "BMP"),
            }
        self.write_table([self.ROW.format(n, "", code) for n, code in self.codes.items()])

    def write_table(self, rows):
        text = "\r\n".join([self.HEADER, *rows]) + self.LEGEND
        self.files["PH2Dataset/PH2_dataset.txt"] = text.encode()

    def folder(self, place):
        for name, content in self.files.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return place

    def zip(self, path):
        return write_zip(path, self.files)


def dermamnist_arrays(size=28):
    """Arrays in the layout of dermamnist.npz, with 20, 5 and 8 images."""
    rng = np.random.default_rng(size)
    arrays = {}
    for part, count in (("train", 20), ("val", 5), ("test", 8)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8).reshape(-1, 1) % 7
        arrays[f"{part}_labels"] = labels
    return arrays


def contents(root):
    """Every file of a folder with its bytes, but locks and the file that fills a disk."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name not in (".lock", "filler")
    }


class Isic2019:
    """A miniature ISIC 2019: two tables and one archive, with some images marked as reduced."""

    CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    COLUMNS = ("image", "age_approx", "anatom_site_general", "lesion_id", "sex")
    TRUTH = "ISIC_2019_Training_GroundTruth.csv"
    METADATA = "ISIC_2019_Training_Metadata.csv"
    IMAGES = "ISIC_2019_Training_Input.zip"

    def __init__(self, folder):
        self.folder = folder
        labels = ["NV"] * 8 + ["MEL"] * 6 + ["BCC"] * 5 + ["BKL"] * 5 + ["AK", "DF", "VASC", "SCC"]
        self.records = []
        for lesion, label in enumerate(labels):
            for _ in range(1 + lesion % 2):
                number = len(self.records)
                row = (
                    f"ISIC_{number:07d}" + ("_downsampled" if number % 5 == 3 else ""),
                    "55" if number % 3 else "",
                    "anterior torso",
                    f"BCN_{lesion:07d}" if lesion % 4 else "",
                    "female",
                )
                record = dict(zip(self.COLUMNS, row, strict=True))
                self.records.append(record | {"label": label})

    @property
    def ids(self):
        return [record["image"] for record in self.records]

    def image(self, image_id):
        return encoded(noise(self.ids.index(image_id)), "JPEG")

    def write_truth(self):
        rows = [
            [r["image"], *("1.0" if r["label"] == name else "0.0" for name in self.CLASSES)]
            for r in self.records
        ]
        self.table(self.TRUTH, [["image", *self.CLASSES], *rows])

    def write_metadata(self, sex="sex"):
        rows = [[r[name] for name in self.COLUMNS] for r in self.records]
        self.table(self.METADATA, [[*self.COLUMNS[:-1], sex], *rows])

    def table(self, name, rows):
        # The publisher's lines end as those of Windows.
        with (self.folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    def change(self, table, line, column, value):
        """Write another value into a cell of a table."""
        with (self.folder / table).open(newline="") as file:
            lines = list(csv.reader(file))
        lines[line][lines[0].index(column)] = value
        self.table(table, lines)

    def write_images(self, ids=None, change=None):
        folder = self.IMAGES.removesuffix(".zip")
        members = {f"{folder}/{i}.jpg": self.image(i) for i in ids or self.ids}
        texts = {f"{folder}/{name}": b"" for name in ("", "ATTRIBUTION.txt", "LICENSE.txt")}
        write_zip(self.folder / self.IMAGES, texts | members | (change or {}))

    def write(self):
        self.write_truth()
        self.write_metadata()
        self.write_images()
