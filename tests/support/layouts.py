"""Small copies of datasets of image files, in their official layouts: real lists, real images."""

import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

# The number of training images of the small Clothing1M.
NOISY = 14 * 8
# Like those of the real list, these are not in ascending order.
SYNSETS = [f"n{9_000_000 - 7919 * i:08}" for i in range(1000)]


# ---- Images and lists ---------------------------------------------------------------------------


def colour(label: int, number: int) -> tuple[int, int, int]:
    """Return a colour that shows the class, a little different for each image."""
    red = 40 + 60 * (label % 4)
    green = 40 + 60 * (label // 4 % 4)
    blue = (31 * number) % 100 + 20 * (label // 16)
    return red, green, blue


def write_image(
    path: Path, label: int = 0, number: int = 0, size: tuple[int, int] = (24, 20), **options
) -> Path:
    """Write an image in a class's colour, with a brighter upper half.

    Its form is that of the path's suffix, and `size` is (width, height).
    """
    width, height = size
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = colour(label, number)
    pixels[: height // 2] += 20

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


# ---- Pictures that are to be turned --------------------------------------------------------------


def turned(pixels, orientation):
    """Return pixels (H, W, 3) as they must be stored so that `orientation` shows `pixels`."""
    # The definition of EXIF: where row 0 and column 0 of the stored pixels lie in the shown ones.
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels[:, ::-1].transpose(1, 0, 2),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: pixels[::-1].transpose(1, 0, 2),
    }
    return np.ascontiguousarray(stored[orientation])


def shown_pixels():
    """Return (16, 24, 3) uint8 whose corners are red, green, blue and white."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :12, 0] = pixels[:8, 12:, 1] = pixels[8:, :12, 2] = 255
    pixels[8:, 12:] = 255
    return pixels


def oriented(value):
    """Return EXIF data with this orientation."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def encoded(label: int, number: int, form: str = "PNG") -> bytes:
    """Return the bytes of an image file in a class's colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (24, 20), colour(label, number)).save(buffer, form)
    return buffer.getvalue()


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a text file of these lines, in a folder that need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def change_line(path: Path, number: int, line: str | None) -> None:
    """Replace the line `number` of a list, counted from 1, or remove it for None."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1 : number] = [] if line is None else [line]
    write_lines(path, lines)


# ---- Datasets with official lists ---------------------------------------------------------------


class Clothing1M:
    """Hold the image names and labels of each part, and write them in one of the known layouts."""

    def __init__(self, train=NOISY, val=14, test=28):
        starts = {"noisy_train": 0, "clean_val": 5000, "clean_test": 7000}
        counts = {"noisy_train": train, "clean_val": val, "clean_test": test}
        self.parts = {}
        for part, start in starts.items():
            entries = []
            for i in range(counts[part]):
                # The real names have a comma, too.
                name = f"images/{i % 10}/{i % 7:02}/{start + i},{17 * i}.jpg"
                entries.append((name, i % 14))
            self.parts[part] = entries

    @property
    def tables(self) -> dict[str, list[tuple[str, int]]]:
        """Return the label tables.

        A training image has a clean label, too, and a validation image a noisy one. Their parts
        must not take these.
        """
        train, val, test = self.parts.values()
        clean = [(train[0][0], 13), *val, *test]
        return {"noisy": [*train, (val[1][0], 12)], "clean": clean}

    def write(
        self, place: Path, lists: str = "", images: str = "images", prefix: str = "images/"
    ) -> Path:
        """Write lists to the folder `lists`, whose names begin with `prefix`, and images."""
        folder = place / lists

        for kind, entries in self.tables.items():
            lines = []
            for key, label in entries:
                lines.append(f"{prefix}{key.removeprefix('images/')} {label}")
            write_lines(folder / f"{kind}_label_kv.txt", lines)

        for part, entries in self.parts.items():
            lines = []
            for i, (key, label) in enumerate(entries):
                name = key.removeprefix("images/")
                lines.append(f"{prefix}{name}")
                write_image(place / images / name, label, i)
            write_lines(folder / f"{part}_key_list.txt", lines)
        return place


class WebVision:
    """Write two training images a class, one for validation and one of ImageNet.

    The lists hold lines of other classes, too, whose images do not exist.
    """

    def __init__(self, per_class=2):
        self.train = []
        for i in range(per_class):
            for label in range(50):
                self.train.append((f"google/q{label:04}/im g,{i}é.jpg", label))
        # In another order than the classes, so that a list must be read to know a label.
        self.val = [(f"val{label:06}.jpg", label) for label in reversed(range(50))]
        self.others = [("google/q0999/not there.jpg", 999), ("google/q0050/x.jpg", 50)]

    def write(self, place: Path, val_prefix: str = "") -> Path:
        """Write lists and images."""
        info = place / "info"
        train = [f"{name} {label}" for name, label in [*self.others, *self.train]]
        write_lines(info / "train_filelist_google.txt", train)
        val = [("val999999.jpg", 999), *self.val]
        write_lines(info / "val_filelist.txt", [f"{val_prefix}{name} {y}" for name, y in val])
        write_lines(info / "synsets.txt", [f"{name} some, name" for name in SYNSETS])

        for i, (name, label) in enumerate(self.train):
            write_image(place / name, label, i)
        for i, (name, label) in enumerate(self.val):
            write_image(place / "val_images_256" / name, label, i)

        # Two more classes, which the first 50 of WebVision leave out.
        for label, name in enumerate([*SYNSETS[:50], *SYNSETS[100:102]]):
            write_image(place / "ilsvrc12" / name / "ILSVRC2012_val_00000001.JPEG", label, 7)
        return place


class Animal10N:
    """Hold three training images and one test image a class, as 64x64 pixels."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.labels = {"train": np.arange(30) * 7 % 10, "test": np.arange(10)}
        self.images = {}
        for part, labels in self.labels.items():
            self.images[part] = rng.integers(0, 256, (len(labels), 64, 64, 3), np.uint8)

    def write_binary(self, place: Path, order: str = "<") -> Path:
        """Write two training files and a test file.

        The second training file has the number 10, which sorts wrongly as text.
        """
        place.mkdir(parents=True, exist_ok=True)
        for name, part, chosen in (
            ("data_batch_2.bin", "train", range(16)),
            ("data_batch_10.bin", "train", range(16, 30)),
            ("test_batch.bin", "test", range(10)),
        ):
            content = b""
            for i in chosen:
                # The files hold a number of the image and its label, then its pixels by channel.
                content += np.array([i, self.labels[part][i]], f"{order}u4").tobytes()
                content += self.images[part][i].transpose(2, 0, 1).tobytes()
            (place / name).write_bytes(content)
        return place

    def write_folders(
        self, place: Path, train: str = "training", test: str = "testing", suffix: str = "png"
    ) -> Path:
        """Write a file LABEL_NUMBER for each image, in a folder for each part."""
        for part, folder in (("train", train), ("test", test)):
            (place / folder).mkdir(parents=True, exist_ok=True)
            for i, label in enumerate(self.labels[part]):
                image = Image.fromarray(self.images[part][i])
                image.save(place / folder / f"{label}_{i:05}.{suffix}")
        return place


# ---- A user's own folder ------------------------------------------------------------------------


CLASSES = ("cat", "dog", "Überläufer, rot")


class Folder:
    """Hold images of three classes. Every fifth training label is wrong, no test label is."""

    def __init__(self, per_class=10, test=3):
        self.clean = [0, 1, 2] * per_class
        self.given = list(self.clean)
        for i in range(0, len(self.given), 5):
            self.given[i] = (self.clean[i] + 1) % 3
        self.test = [0, 1, 2] * test

    @property
    def parts(self) -> list[tuple[str, list[int], list[int]]]:
        """Return (part, given labels, classes that the images show)."""
        return [("train", self.given, self.clean), ("test", self.test, self.test)]

    def options(self, part: str) -> dict[str, int]:
        """Return options for JPEG files: no test image has the bytes of a training image."""
        return {} if part == "train" else {"quality": 85}

    def write_classes(self, place: Path) -> Path:
        """Write a folder for each class. One image lies a folder deeper."""
        for part, labels, shown in self.parts:
            for i, label in enumerate(labels):
                inner = "more" if i == 1 else "."
                path = place / part / CLASSES[label] / inner / f"{i:03}.jpg"
                write_image(path, shown[i], i, **self.options(part))
        return place

    def write_csv(self, place: Path, clean: bool = True) -> Path:
        """Write a list for each part, that for training with clean labels unless told otherwise."""
        for part, labels, shown in self.parts:
            with_clean = clean and part == "train"

            lines = ["path,label,clean_label" if with_clean else "path,label"]
            for i, label in enumerate(labels):
                path = place / "pictures" / part / f"no {i}, ñ.jpg"
                write_image(path, shown[i], i, **self.options(part))
                columns = [str(path.relative_to(place)), CLASSES[label]]
                if with_clean:
                    columns.append(CLASSES[shown[i]])
                # A comma in a name needs the quotation marks.
                lines.append(",".join(f'"{value}"' for value in columns))
            write_lines(place / f"{part}.csv", lines)
        return place

    def write_parquet(
        self, place: Path, clean: bool = False, named: bool = True, data: str = "data"
    ) -> Path:
        """Write two files a part as Hugging Face does.

        Images are structs, labels are numbers. Their names are in the metadata if `named`.
        """
        (place / data).mkdir(parents=True, exist_ok=True)
        names = {"names": list(CLASSES), "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": names}
        metadata = {}
        if named:
            metadata["huggingface"] = json.dumps({"info": {"features": features}})

        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        for part, labels, shown in self.parts:
            for shard, rows in enumerate(np.array_split(np.arange(len(labels)), 2)):
                images = []
                for i in rows:
                    content = encoded(shown[i], i + 50 * (part == "test"))
                    images.append({"bytes": content, "path": f"{i}.png"})
                columns = {
                    "image": pa.array(images, struct),
                    "label": pa.array([labels[i] for i in rows]),
                }
                if clean and part == "train":
                    columns["clean_label"] = pa.array([shown[i] for i in rows])
                table = pa.table(columns).replace_schema_metadata(metadata)
                pq.write_table(table, place / data / f"{part}-{shard:05}-of-00002.parquet")
        return place


# ---- MNIST --------------------------------------------------------------------------------------


class Mnist:
    """A small MNIST: digits with random pixels, in torchvision's and in Hugging Face's layout."""

    def __init__(self, num_train: int = 30, num_test: int = 20):
        rng = np.random.default_rng(0)
        self.images, self.labels = {}, {}
        for part, count in (("train", num_train), ("test", num_test)):
            self.images[part] = rng.integers(0, 256, (count, 28, 28), np.uint8)
            self.labels[part] = np.arange(count) % 10

    def idx(self) -> dict[str, bytes]:
        """Return the four idx files: name -> content."""
        files = {}
        for part, name in (("train", "train"), ("test", "t10k")):
            images, labels = self.images[part], self.labels[part]
            head = struct.pack(">4i", 2051, len(images), 28, 28)
            files[f"{name}-images-idx3-ubyte"] = head + images.tobytes()
            head = struct.pack(">2i", 2049, len(labels))
            files[f"{name}-labels-idx1-ubyte"] = head + labels.astype(np.uint8).tobytes()
        return files

    def write_idx(self, folder: Path, packed: bool = True) -> None:
        """Write the four files as torchvision leaves them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.idx().items():
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)

    def write_parquet(self, folder: Path) -> None:
        """Write a file for each part, as the Hugging Face repository has them."""
        folder.mkdir(parents=True, exist_ok=True)
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        for part in ("train", "test"):
            cells = []
            for pixels in self.images[part]:
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "PNG")
                cells.append({"bytes": file.getvalue(), "path": None})
            columns = {
                "image": pa.array(cells, image),
                "label": pa.array(self.labels[part].tolist(), pa.int64()),
            }
            pq.write_table(pa.table(columns), folder / f"{part}-00000-of-00001.parquet")


# ---- IMDB ---------------------------------------------------------------------------------------


class Imdb:
    """A small IMDB, in the authors' folder and in Hugging Face's layout."""

    def __init__(self, per_class: int = 12):
        rng = np.random.default_rng(0)
        words = {0: ["dull", "awful", "bored"], 1: ["lovely", "superb", "moved"]}
        self.texts: dict[str, list[str]] = {"train": [], "test": []}
        self.labels = [label for label in (0, 1) for _ in range(per_class)]
        for part, texts in self.texts.items():
            for i, label in enumerate(self.labels):
                told = " ".join(rng.choice(words[label], 3))
                texts.append(f"The film, number {i} of the {part}:<br /><br />I was {told}!")

    def write_folders(self, root: Path) -> None:
        """Write NUMBER_RATING.txt into train/neg, train/pos, test/neg and test/pos."""
        for part, texts in self.texts.items():
            for i, (text, label) in enumerate(zip(texts, self.labels, strict=True)):
                folder = root / part / ("neg", "pos")[label]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{i}_{(3, 8)[label]}.txt").write_text(text, encoding="utf-8")
        # What else lies in the authors' folder.
        (root / "train" / "unsup").mkdir()
        (root / "train" / "unsup" / "0_0.txt").write_text("not labelled")
        (root / "imdb.vocab").write_text("the\nand\n")

    def write_parquet(self, folder: Path) -> None:
        """Write a file for each part, as the Hugging Face repository has them."""
        folder.mkdir(parents=True, exist_ok=True)
        features = {
            "text": {"dtype": "string", "_type": "Value"},
            "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
        }
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        for part, texts in self.texts.items():
            table = pa.table({"text": texts, "label": pa.array(self.labels, pa.int64())})
            table = table.replace_schema_metadata(metadata)
            pq.write_table(table, folder / f"{part}-00000-of-00001.parquet")
