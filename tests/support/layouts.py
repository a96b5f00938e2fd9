"""Small copies of datasets of image files, in their official layouts: real lists, real images."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NOISY = 14 * 8  # Clothing1M's training images here
SYNSETS = [f"n{9_000_000 - 7919 * i:08}" for i in range(1000)]  # as in the real list not in ascending order


def colour(label: int, number: int) -> tuple[int, int, int]:
    """A colour that a network can tell a class by, a little different for each image."""
    return 40 + 60 * (label % 4), 40 + 60 * (label // 4 % 4), (31 * number) % 100 + 20 * (label // 16)


def write_image(path: Path, label: int = 0, number: int = 0, size: tuple[int, int] = (24, 20), **options) -> Path:
    """A JPEG (or what the suffix says) of `size` (width, height): a class's colour, and a brighter upper half."""
    pixels = np.empty((size[1], size[0], 3), np.uint8)
    pixels[:] = colour(label, number)
    pixels[: size[1] // 2] += 20
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def encoded(label: int, number: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 20), colour(label, number)).save(buffer, form)
    return buffer.getvalue()


class Clothing1M:
    """Keys with their labels for each part; `write` makes the files of one of the layouts that people have."""

    def __init__(self, train=NOISY, val=14, test=28):
        self.parts = {
            part: [(f"images/{i % 10}/{i % 7:02}/{start + i},{17 * i}.jpg", i % 14) for i in range(count)]
            for part, start, count in (("noisy_train", 0, train), ("clean_val", 5000, val), ("clean_test", 7000, test))
        }

    @property
    def tables(self) -> dict[str, list[tuple[str, int]]]:
        """The label tables. A training image has a clean label, too, which its part must not take."""
        train, val, test = self.parts.values()
        clean = [(train[0][0], 13), *val, *test]
        return {"noisy": [*train, (val[1][0], 12)], "clean": clean}

    def write(self, place: Path, lists: str = "", images: str = "images", prefix: str = "images/") -> Path:
        """Lists in the folder `lists`, images in `images`, keys that begin with `prefix`."""
        folder = place / lists
        folder.mkdir(parents=True, exist_ok=True)

        def name(key):
            return prefix + key.removeprefix("images/")

        for kind, rows in self.tables.items():
            write_lines(folder / f"{kind}_label_kv.txt", [f"{name(key)} {label}" for key, label in rows])
        for part, rows in self.parts.items():
            write_lines(folder / f"{part}_key_list.txt", [name(key) for key, _ in rows])
            for i, (key, label) in enumerate(rows):
                write_image(place / images / key.removeprefix("images/"), label, i)
        return place


class WebVision:
    """Two training images a class (and other classes' lines), one for validation, one of ImageNet."""

    def __init__(self, per_class=2):
        self.train = [(f"google/q{label:04}/im g,{i}é.jpg", label) for i in range(per_class) for label in range(50)]
        self.val = [(f"val{label:06}.jpg", label) for label in reversed(range(50))]
        self.others = [("google/q0999/not there.jpg", 999), ("google/q0050/x.jpg", 50)]

    def write(self, place: Path, val_prefix: str = "") -> Path:
        train = [*self.others, *self.train]
        write_lines(place / "info" / "train_filelist_google.txt", [f"{name} {label}" for name, label in train])
        val = [f"{val_prefix}{name} {label}" for name, label in [("val999999.jpg", 999), *self.val]]
        write_lines(place / "info" / "val_filelist.txt", val)
        write_lines(place / "info" / "synsets.txt", [f"{name} some, name" for name in SYNSETS])
        for i, (name, label) in enumerate(self.train):
            write_image(place / name, label, i)
        for i, (name, label) in enumerate(self.val):
            write_image(place / "val_images_256" / name, label, i)
        for label, name in enumerate([*SYNSETS[:50], *SYNSETS[100:102]]):
            write_image(place / "ilsvrc12" / name / "ILSVRC2012_val_00000001.JPEG", label, 7)
        return place


class Animal10N:
    """Three training images and one test image a class, as 64x64 pixels."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.labels = {"train": np.arange(30) * 7 % 10, "test": np.arange(10)}
        self.images = {part: rng.integers(0, 256, (len(y), 64, 64, 3), np.uint8) for part, y in self.labels.items()}

    def write_binary(self, place: Path, order: str = "<") -> Path:
        """Two training files, of which the tenth stands for a name that sorts wrongly as text."""
        place.mkdir(parents=True, exist_ok=True)
        half = np.arange(30) < 16
        for name, part, chosen in (
            ("data_batch_2.bin", "train", half),
            ("data_batch_10.bin", "train", ~half),
            ("test_batch.bin", "test", np.ones(10, bool)),
        ):
            content = b""
            for i in np.flatnonzero(chosen):
                content += np.array([i, self.labels[part][i]], f"{order}u4").tobytes()
                content += self.images[part][i].transpose(2, 0, 1).tobytes()
            (place / name).write_bytes(content)
        return place

    def write_folders(self, place: Path, train: str = "training", test: str = "testing", suffix: str = "png") -> Path:
        for part, folder in (("train", train), ("test", test)):
            (place / folder).mkdir(parents=True, exist_ok=True)
            for i, label in enumerate(self.labels[part]):
                Image.fromarray(self.images[part][i]).save(place / folder / f"{label}_{i:05}.{suffix}")
        return place


CLASSES = ("cat", "dog", "Überläufer, rot")


class Folder:
    """Images of three classes, whose labels are wrong for every fifth; test images are the clean ones' like."""

    def __init__(self, per_class=10, test=3):
        self.clean = [i % 3 for i in range(3 * per_class)]
        self.given = [(y + 1) % 3 if i % 5 == 0 else y for i, y in enumerate(self.clean)]
        self.test = [i % 3 for i in range(3 * test)]

    def write_classes(self, place: Path) -> Path:
        """CLASS/FILE; one of them a folder deeper."""
        for part, labels in (("train", self.given), ("test", self.test)):
            for i, label in enumerate(labels):
                inner = "more" if i == 1 else "."
                shown = self.clean[i] if part == "train" else label
                write_image(place / part / CLASSES[label] / inner / f"{i:03}.jpg", shown, i)
        return place

    def write_csv(self, place: Path, clean: bool = True) -> Path:
        for part, labels in (("train", self.given), ("test", self.test)):
            lines = ["path,label,clean_label" if clean and part == "train" else "path,label"]
            for i, label in enumerate(labels):
                shown = self.clean[i] if part == "train" else label
                path = write_image(place / "pictures" / part / f"no {i}, ñ.jpg", shown, i)
                row = [str(path.relative_to(place)), CLASSES[label]]
                row += [CLASSES[shown]] if clean and part == "train" else []
                lines.append(",".join(f'"{value}"' for value in row))
            write_lines(place / f"{part}.csv", lines)
        return place

    def write_parquet(self, place: Path, clean: bool = False, named: bool = True, data: str = "data") -> Path:
        """As Hugging Face writes it: images as structs, labels as numbers with their names in the metadata."""
        (place / data).mkdir(parents=True, exist_ok=True)
        features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if named else {}
        for part, labels in (("train", self.given), ("test", self.test)):
            shown = self.clean if part == "train" else labels
            for shard, rows in enumerate(np.array_split(np.arange(len(labels)), 2)):
                images = [{"bytes": encoded(shown[i], i), "path": f"{i}.png"} for i in rows]
                columns = {
                    "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                    "label": pa.array([labels[i] for i in rows]),
                }
                if clean and part == "train":
                    columns["clean_label"] = pa.array([shown[i] for i in rows])
                table = pa.table(columns).replace_schema_metadata(metadata)
                pq.write_table(table, place / data / f"{part}-{shard:05}-of-00002.parquet")
        return place


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def change_line(path: Path, number: int, line: str | None) -> None:
    """Put `line` in place of a list's line `number`, from 1, or take it out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1 : number] = [] if line is None else [line]
    write_lines(path, lines)
