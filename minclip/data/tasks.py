"""Named zero-shot tasks: some pictures, and a list of class names that nobody trained a classifier on.

The paper (section 3.1) tests one model on some 30 data sets by naming their classes. Here each data
set is a part of the glyph world drawn in a typeface that no training picture came from, or with
names that were never trained on, and one of real handwriting: scikit-learn's scanned digits.
Notebook 06.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from ..errors import MinclipError
from .glyphs import Atlas
from .painting import COLOURS, DARK, LIGHT

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLAIN = ("{}", "the character {}", "a picture of {}")  # an ensemble in the wordings of training

# Tasks whose classes are the Unicode names that match a pattern, in a face never trained on.
NAMED = {
    "unseen-typeface-digits": r"digit \w+",
    "latin-capitals": r"latin capital letter [a-z]",
    "latin-small-letters": r"latin small letter [a-z]",
    "greek-capitals": r"greek capital letter \w+",
    "greek-small-letters": r"greek small letter \w+",
    "cyrillic-capitals": r"cyrillic capital letter \w+",
    "armenian-small-letters": r"armenian small letter \w+",
    "georgian-letters": r"georgian letter \w+",
    "hebrew-letters": r"hebrew letter \w+",
    "arabic-letters": r"arabic letter \w+",
    "lao-letters": r"lao letter .*",
    "arrows": r"(\w+ )?(\w+ )?arrow",
    "chess": r"(white|black) chess \w+",
    "card-suits": r"(white|black) (spade|heart|diamond|club) suit",
    "playing-cards": r"playing card .* of .*",
    "dice": r"die face-\d",
    "dominoes": r"domino tile \w+-\d\d-\d\d",
    "zodiac": r"aries|taurus|gemini|cancer|leo|virgo|libra|scorpius|sagittarius|capricorn|aquarius|pisces",
    "planets": r"mercury|female sign|earth|male sign|jupiter|saturn|uranus|neptune|pluto",
    "faces": r".* face",
    "braille": r"braille pattern dots-\d+",
    "box-drawing": r"box drawings .*",
    "block-elements": r"(.* )?(block|shade)|quadrant .*",
    "operators": r"(plus|minus|multiplication|division|equals|less-than|greater-than|plus-minus|percent) sign|infinity"
    r"|square root|integral|not equal to|almost equal to|identical to|element of|empty set|for all|there exists"
    r"|n-ary (summation|product)",
    "currency": r"(dollar|cent|pound|yen|euro|cruzeiro|french franc|lira|naira|peseta|rupee|won|new sheqel|dong|kip"
    r"|tugrik|drachma|peso|guarani|austral|hryvnia|cedi|ruble|bitcoin) sign",
    "fractions": r"vulgar fraction .*",
    "roman-numerals": r"roman numeral .*",
    "trigrams": r"trigram for .*",
    "canadian-syllabics": r"canadian syllabics \w+",
}  # fmt: skip


@dataclass
class Task:
    """Pictures to be classified by class names alone.

    images: (N, S, S, 3) uint8
    labels: (N,) int64, each picture's place in `class_names`
    templates: captions with {} for the class name, averaged into one classifier
    about: one line for the reader
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    templates: tuple[str, ...]
    about: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def chance(self) -> float:
        """Accuracy of naming a class at random."""
        return 1 / len(self.class_names)

    def select(self, rows: np.ndarray | slice) -> "Task":
        """The task with some of its pictures alone: a mask (N,), indices or a slice."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])


def glyph_tasks(atlas: Atlas) -> dict[str, Task]:
    """All tasks, name -> Task, from the whole atlas (`load_atlas()`), training glyphs included."""
    unseen_face = atlas.select(atlas.of_faces("unseen"))
    tasks = [
        named_task("unseen-names", atlas.unseen_names(), "characters whose names were never trained on"),
        named_task(
            "unseen-typeface", unseen_face.select(np.isin(unseen_face.name, atlas.training().name)),
            "every name that was trained on, in a typeface never seen",
        ),
    ]  # fmt: skip
    for name, pattern in NAMED.items():
        matches = np.array([re.fullmatch(pattern, text) is not None for text in unseen_face.name])
        about = f"{name.removeprefix('unseen-typeface-').replace('-', ' ')} in a typeface never seen"
        tasks.append(named_task(name, unseen_face.select(matches), about))
    tasks += [script_task(unseen_face), style_task(unseen_face, "weight"), style_task(unseen_face, "slant")]
    tasks += [colour_task(unseen_face, "ink"), colour_task(unseen_face, "paper"), handwritten_digits(atlas.size)]
    return {task.name: task for task in tasks}


def validation_task(atlas: Atlas) -> Task:
    """What recipes are tuned on: names kept apart both from training and from `unseen-names`."""
    return named_task("validation-names", atlas.unseen_names("validation"), "names held out to tune on")


def named_task(name: str, glyphs: Atlas, about: str) -> Task:
    """Each picture's class is its Unicode name."""
    if len(glyphs) == 0:
        raise MinclipError(f"No glyph belongs to the task {name!r}; were its fonts removed?")
    class_names, labels = np.unique(glyphs.name, return_inverse=True)
    return Task(name, glyphs.pictures(), labels, class_names.tolist(), PLAIN, about)


def script_task(glyphs: Atlas) -> Task:
    """Which script is this letter of? Letters whose own names were never trained on."""
    scripts = ("Latin", "Greek", "Cyrillic", "Arabic", "Hebrew", "Armenian", "Georgian", "Lao", "Canadian Aboriginal")
    glyphs = glyphs.select(np.isin(glyphs.script, scripts) & (glyphs.split == "test"))
    called = {"Canadian Aboriginal": "canadian syllabics"} | {s: f"{s.lower()} letter" for s in scripts[:-1]}
    labels = np.array([scripts.index(script) for script in glyphs.script])
    return Task(
        "script", glyphs.pictures(), labels, [called[s] for s in scripts], PLAIN, "which script a letter belongs to"
    )


def style_task(glyphs: Atlas, attribute: str) -> Task:
    """Weight (regular or bold) or slant (regular or italic), the other held at its plain value."""
    other, plain = ("slant", "upright") if attribute == "weight" else ("weight", "regular")
    letters = np.array([re.fullmatch(r"latin (capital|small) letter [a-z]", name) is not None for name in glyphs.name])
    glyphs = glyphs.select(letters & (glyphs.of_faces(other) == plain))
    marked = {"weight": "bold", "slant": "italic"}[attribute]
    labels = (glyphs.of_faces(attribute) == marked).astype(np.int64)
    templates = tuple(
        f"{{}} latin {case} letter {letter}" for case in ("capital", "small") for letter in ascii_lowercase
    )
    return Task(attribute, glyphs.pictures(), labels, ["regular", marked], templates, f"regular or {marked} letters")


def colour_task(glyphs: Atlas, where: str) -> Task:
    """Capital letters in every named ink on white or black, or in black or white on every named paper."""
    capitals = [re.fullmatch(r"latin capital letter [a-z]", name) is not None for name in glyphs.name]
    cover = glyphs.select(np.array(capitals)).ink[..., None] / 255  # (N, S, S, 1)
    pictures, labels = [], []
    for label, (name, colour) in enumerate(COLOURS.items()):
        contrast = (LIGHT["white"], LIGHT["cream"]) if name in DARK else (DARK["black"], DARK["navy"])
        for i, other in enumerate(contrast):
            ink, paper = (colour, other) if where == "ink" else (other, colour)
            some = cover[i :: len(contrast)]
            pictures.append(np.round(np.array(paper) * (1 - some) + np.array(ink) * some).astype(np.uint8))
            labels += [label] * len(some)
    # Averaged over the alphabet, the letter cancels out of the classifier and the colour is left.
    wording = "{{}} latin capital letter {}" if where == "ink" else "latin capital letter {} on {{}}"
    templates = tuple(wording.format(letter) for letter in ascii_lowercase)
    about = f"the colour of the {where}"
    return Task(f"{where}-colour", np.concatenate(pictures), np.array(labels), list(COLOURS), templates, about)


def handwritten_digits(size: int) -> Task:
    """scikit-learn's 1,797 scans of handwriting, 8 px square, set like printed digits of `size` px."""
    digits = load_digits()
    images = digit_pictures(digits.images, size)
    class_names = [f"digit {word}" for word in DIGITS]
    return Task("handwritten-digits", images, digits.target, class_names, PLAIN, "scanned handwriting")


def digit_pictures(scans: Sequence[np.ndarray], size: int) -> np.ndarray:
    """(N, 8, 8) scans, 0 to 16, as dark ink -> (N, size, size, 3) uint8, on the baseline where fonts have theirs."""
    height = round(0.75 * size * 0.73)  # a printed digit's, of a point size that is 3/4 of the picture
    left, top = (size - height) // 2, round(0.75 * size) - height
    pictures = np.full((len(scans), size, size, 3), 255, np.uint8)
    for picture, scan in zip(pictures, scans):
        scan = Image.fromarray(np.round(255 - scan * 255 / 16).astype(np.uint8))
        digit = np.asarray(scan.resize((height, height), Image.Resampling.BICUBIC))
        picture[top : top + height, left : left + height] = digit[..., None]
    return pictures
