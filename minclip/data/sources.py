"""Where captioned pictures come from: `datasets` opens a source, and its columns are found.

Pictures stay encoded here; `decoding.py` decodes them and `hub.py` deals them out.
"""

import glob
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import MinclipError

# What data sets call their columns, the likeliest first. WebDataset columns are file suffixes.
IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "pixel_values")
PATH_NAMES = ("image", "image_path", "file_name", "filename", "filepath", "file", "path", "img", "img_path")
TEXT_NAMES = (
    "caption", "captions", "text", "txt", "sentences", "sentence", "description", "alt_text", "prompt", "title",
    "label", "labels", "class", "cls", "target",
)  # fmt: skip
FORMAT_OF_SUFFIX = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json",
    ".tar": "webdataset", ".arrow": "arrow",
}  # fmt: skip
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@contextmanager
def told(trouble: str, advice: str) -> Iterator[None]:
    """Any error of the hub, the network or a parser becomes a MinclipError: each has its own, and says what it met."""
    try:
        yield
    except MinclipError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:400].rstrip(".")
        raise MinclipError(f"{trouble}. {reason}. {advice}.") from error


def reading(name: str):
    """`told` for what reads a stream's rows: a torn file or a lost connection shows only then."""
    return told(f"{name} cannot be read", "Look whether its files are whole, and for a hub name at the connection")


def open_source(source, split: str = "train", streaming: bool = False):
    """-> (`datasets.Dataset` or `IterableDataset`, what to call it in messages).

    A file is whatever split you ask for; a folder or a hub name must have that split. A name with `*` is a
    pattern where nothing is called so.

    Raises MinclipError when there is no such source or split, or it cannot be read or reached.
    """
    import datasets  # slow to import, and not needed to train on glyphs

    if isinstance(source, datasets.Dataset | datasets.IterableDataset):
        return source, "the data set"
    if isinstance(source, datasets.DatasetDict | datasets.IterableDatasetDict):
        if split not in source:
            raise MinclipError(f"The data set has no split {split!r}; it has {', '.join(source)}.")
        return source[split], f"the data set's split {split!r}"
    name, path = str(source), Path(source)
    where = "folder" if path.is_dir() else "file" if path.is_file() else "name on the Hugging Face hub"
    trouble = f"The {where} {name!r} cannot be opened as split {split!r}"
    advice = "Look at the name and the split, and for a hub name at the connection; a local file or folder needs none"
    with told(trouble, advice):
        if path.is_file() or ("*" in name and not path.exists()):
            kind = FORMAT_OF_SUFFIX.get(path.suffix.lower())
            if kind is None:
                known = ", ".join(FORMAT_OF_SUFFIX)
                raise MinclipError(f"{name} has the suffix {path.suffix!r}; a file of pictures is one of {known}.")
            options = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
            # `datasets` takes a name for a pattern, the folders above it included.
            data_files = {split: glob.escape(str(path.absolute())) if path.is_file() else name}
            return datasets.load_dataset(kind, data_files=data_files, split=split, streaming=streaming, **options), name
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            return open_source(datasets.load_from_disk(name), split)[0], name
        if not path.is_dir() and (path.suffix.lower() in FORMAT_OF_SUFFIX or not HUB_NAME.fullmatch(name)):
            raise MinclipError(
                f"There is no file or folder {name} (relative paths start from {Path.cwd()}), and it is no name on "
                "the Hugging Face hub, which would be of the form owner/name."
            )
        whole = str(path.resolve())
        if path.is_dir() and (escaped := glob.escape(whole)) != whole:
            return datasets.load_dataset(format_in(path), data_dir=escaped, split=split, streaming=streaming), name
        return datasets.load_dataset(name, split=split, streaming=streaming), name


def format_in(folder: Path) -> str:
    """What most of a folder's files are, as `datasets` finds out itself where the name is no pattern."""
    suffixes = Counter(file.suffix.lower() for file in folder.rglob("*.*") if file.stem != "metadata")
    return FORMAT_OF_SUFFIX.get(max(suffixes, key=suffixes.get, default=""), "imagefolder")


def features_of(dataset, name: str) -> dict:
    """Column name -> `datasets` feature; a stream that declares none is read up to its first row.

    Raises MinclipError when that cannot be read, or there is none.
    """
    import datasets

    if dataset.features is not None:
        return dict(dataset.features)
    with reading(name):
        row = next(iter(dataset.take(1)), None)
    if row is None:
        raise MinclipError(f"{name} holds no rows.")
    return dict(datasets.Dataset.from_list([row]).features)


@dataclass(frozen=True)
class Columns:
    """Where a source keeps its pictures and its words.

    image: holds encoded pictures or the paths of files, which start from `folder`
    text: holds captions or labels; label_names, where these are numbers that stand for names
    """

    image: str
    text: str
    label_names: tuple[str, ...] | None = None
    folder: Path | None = None


def find_columns(features: dict, name: str, image: str | None, text: str | None, with_numbers: bool) -> Columns:
    """The columns asked for, or, where None, the obvious ones.

    with_numbers: labels that are bare numbers will do, as in evaluation they may

    Raises MinclipError, listing the columns, when one is missing or none is obvious; and where both are one.
    """
    import datasets

    kinds = {column: _kind(feature) for column, feature in features.items()}
    of = {kind: [column for column in kinds if kinds[column] == kind] for kind in set(kinds.values())}
    pictures, words = of.get("image", []), of.get("text", [])
    image = (
        image or _obvious(pictures, IMAGE_NAMES) or _obvious([c for c in words if c.lower() in PATH_NAMES], PATH_NAMES)
    )
    words = words + of.get("label", []) + (of.get("number", []) if with_numbers else [])
    text = text or _obvious([column for column in words if column != image], TEXT_NAMES)
    for what, column, option in (("pictures", image, "image_column"), ("captions or labels", text, "caption_column")):
        if column not in features:
            asked = f"has no column {column!r}" if column else f"has no column that obviously holds {what}"
            listed = ", ".join(f"{c} ({kinds[c]})" for c in features)
            raise MinclipError(f"{name} {asked}. Its columns: {listed}. Name one with {option}.")
    if image == text:
        raise MinclipError(f"Column {image!r} of {name} cannot hold both the pictures and their captions; name two.")
    if kinds[image] not in ("image", "text"):
        raise MinclipError(f"Column {image!r} of {name} holds {kinds[image]}s, not pictures or the paths of pictures.")
    label_names = features[text].names if isinstance(features[text], datasets.ClassLabel) else None
    return Columns(image, text, tuple(label_names) if label_names else None)


def _obvious(columns: list[str], names: Sequence[str]) -> str | None:
    """The column with the likeliest name; or the only one there is."""
    by_name = {column.lower(): column for column in reversed(columns)}
    found = next((by_name[name] for name in names if name in by_name), None)
    return found or (columns[0] if len(columns) == 1 else None)


def _kind(feature) -> str:
    """What a column holds, in a word: image, text, label, number or something else."""
    import datasets

    if isinstance(feature, datasets.Image) or (isinstance(feature, dict) and "bytes" in feature):
        return "image"
    if isinstance(feature, datasets.ClassLabel):
        return "label"
    item = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    dtype = str(getattr(item, "dtype", type(item).__name__))
    if dtype in ("binary", "large_binary"):
        return "image"
    if dtype in ("string", "large_string"):
        return "text"
    return "number" if dtype.startswith(("int", "uint")) and item is feature else dtype


def open_undecoded(source, split, streaming, image_column, text_column, with_numbers=False) -> tuple:
    """-> (dataset of the two columns alone, pictures left encoded; Columns; name for messages)."""
    import datasets

    dataset, name = open_source(source, split, streaming)
    if getattr(dataset, "format", {}).get("type") == "custom":
        raise MinclipError(f"{name} has a transform, but its pictures are read undecoded. Apply that with map instead.")
    dataset = dataset.with_format(None)  # whose cells are Python's, whatever format the caller reads them in
    features = features_of(dataset, name)
    columns = find_columns(features, name, image_column, text_column, with_numbers)
    dataset = dataset.select_columns([columns.image, columns.text])
    if isinstance(features[columns.image], datasets.Image):
        undecoded = datasets.Image(decode=False)
        if dataset.features is None:  # a stream forgets them in map
            known = {columns.image: undecoded, columns.text: features[columns.text]}
            dataset = dataset.cast(datasets.Features(known))
        else:
            dataset = dataset.cast_column(columns.image, undecoded)
    elif isinstance(source, str | Path):  # paths in a file start from its own folder
        columns = replace(columns, folder=Path(source) if Path(source).is_dir() else Path(source).parent)
    return dataset, columns, name


def captions_of(value, label_names: Sequence[str] | None) -> list[str]:
    """A cell of the text column -> its captions: a string's one, a list's several, a label's name, or none."""
    if isinstance(value, int) and label_names is not None:
        return [label_names[value].replace("_", " ")] if 0 <= value < len(label_names) else []
    values = value if isinstance(value, list | tuple) else [value]
    return [text.strip() for text in values if isinstance(text, str) and text.strip()]
