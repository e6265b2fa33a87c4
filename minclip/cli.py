"""The command line: `python -m minclip demo | pretrain | evaluate | experiment | bench | check | progress`.

Options are the fields of these dataclasses and of the recipes they hold, through `tyro`. A mistake of
the user's ends in one sentence and a non-zero exit code, never in a traceback.
"""

import os
import platform
import shlex
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal

import torch
import tyro

from . import distributed, plots
from .clip import CLIP
from .data.glyphs import load_atlas
from .data.hub import load_pairs, load_pictures
from .demo import describe_device, run_demo, train_on_glyphs, train_on_pairs, write_json
from .errors import MinclipError
from .evaluation import evaluate_glyphs, figures_as_text
from .experiments.common import Setting, provenance
from .presets import PRESETS, Preset, find_preset
from .pretrained import load
from .real_pictures import classify_pictures, read_class_names, retrieve_pictures
from .tokenizer import CLIPTokenizer


@dataclass(frozen=True)
class Source:
    """Captioned pictures to use in place of the glyphs."""

    data: str | None = None
    """A data set of captioned pictures: a name on the Hugging Face hub (owner/name), a Parquet, CSV, JSON-lines or
    WebDataset (.tar) file, or a folder of these or of pictures."""
    split: str = "train"
    """Which part of a hub data set or a folder. A file is one part, whatever this says."""
    image_column: str | None = None
    """Where the pictures are; guessed where that is obvious."""
    caption_column: str | None = None
    """Where the captions, or labels, are; guessed where that is obvious."""
    workers: int = min(8, (os.cpu_count() or 1) - 1)
    """Processes that decode pictures, beside this one."""


@dataclass(frozen=True)
class TrainingSource(Source):
    """Captioned pictures to train on in place of the glyphs."""

    streaming: bool = False
    """Read the data from end to end, storing nothing; for data larger than the disk."""
    cache_gb: float = 4.0
    """Keep decoded pictures on the device if all fit in so many GiB."""


@dataclass
class Recipe:
    """Options shared by the commands that train."""

    preset: str = "cpu"
    """Which ready recipe to start from ("cpu" is the demo's); the options below change single parts of it."""
    recipe: Annotated[Preset, tyro.conf.arg(name="")] = PRESETS["cpu"]
    run: Path = Path("runs/demo")
    """Folder for the checkpoint, the metrics and the results."""
    resume: bool = False
    """Go on from the run folder's checkpoint."""
    fonts: str | None = None
    """A folder of more fonts (TTF, OTF, TTC) to learn from."""
    device: str | None = None
    """cpu, cuda or mps; if not given, cuda where there is one, or else cpu."""
    json: Path | None = None
    """Write the results to this file, too."""


@dataclass
class Demo(Recipe):
    """Train a CLIP on this computer's fonts, test it on names and typefaces it never saw, write a report."""

    def __call__(self) -> dict:
        device = find_device(self.device)
        figures = run_demo(self.recipe, self.run, device, self.fonts, self.resume)
        print(
            f"\n{figures['images_seen']:,} pictures in {figures['seconds']:.0f} s on {figures['device']}, "
            f"{figures['parameters'] / 1e6:.2f} M parameters, seed {figures['seed']}\n"
        )
        print(figures_as_text(figures))
        name_skipped_fonts(figures["skipped_fonts"])
        print(f"\nThe report: {self.run / 'report.html'}")
        return figures


@dataclass
class Pretrain(Recipe):
    """Train a CLIP on glyphs, or on a data set, and save it. Under torchrun, by several processes."""

    source: Annotated[TrainingSource, tyro.conf.arg(name="")] = TrainingSource()

    def __call__(self) -> dict:
        device, resolution = find_device(self.device), self.recipe.model.image_resolution
        if self.source.data is None:
            atlas = load_atlas(resolution, self.fonts)
            name_skipped_fonts(atlas.skipped)
            _, _, records = train_on_glyphs(self.recipe, atlas, self.run, device, self.resume)
            faults, evaluate = {}, ["evaluate", str(self.run)]
        else:
            options = asdict(self.source)
            pairs = load_pairs(options.pop("data"), resolution=resolution, device=device, **options)
            _, _, records = train_on_pairs(self.recipe, pairs, pairs.sample_captions(), self.run, device, self.resume)
            faults = pairs.faults.reasons
            evaluate = ["evaluate", str(self.run), "--data", self.source.data, "--split", self.source.split]
        if distributed.rank() == 0:
            print(f"Saved in {self.run}. Next: python -m minclip {shlex.join(evaluate)}")
        return {"device": describe_device(device), "skipped_pictures": faults, **records[-1]}


@dataclass
class Evaluate:
    """Test a model: on every task of the glyph world, or on a data set, by class names or by its captions."""

    model: Annotated[str, tyro.conf.Positional]
    """A bundled model's name, or the folder of a run."""
    fonts: str | None = None
    """A folder of more fonts (TTF, OTF, TTC) to test on."""
    source: Annotated[Source, tyro.conf.arg(name="")] = Source(split="test")
    classes: Path | None = None
    """A text file with a class name on each line, for zero-shot classification of the data. Without it, retrieval."""
    templates: tuple[str, ...] = ("{}",)
    """Captions in which a class name stands for {}; several are averaged."""
    device: str | None = None
    """cpu, cuda or mps; if not given, cuda where there is one, or else cpu."""
    json: Path | None = None
    """Write the results to this file, too."""

    def __call__(self) -> dict:
        model, tokenizer = load(self.model, find_device(self.device))
        if self.source.data is not None:
            return self.evaluate_data(model, tokenizer)
        if self.classes is not None:
            raise MinclipError("--classes names the classes of a data set; give that with --data.")
        atlas = load_atlas(model.config.image_resolution, self.fonts)
        name_skipped_fonts(atlas.skipped)
        figures, _ = evaluate_glyphs(model, tokenizer, atlas)
        print(figures_as_text(figures))
        return figures

    def evaluate_data(self, model: CLIP, tokenizer: CLIPTokenizer) -> dict:
        class_names = read_class_names(self.classes) if self.classes is not None else None
        options = asdict(self.source)
        pictures = load_pictures(options.pop("data"), resolution=model.config.image_resolution, **options)
        if class_names is None:
            figures = {"retrieval": retrieve_pictures(model, tokenizer, pictures)}
            count, different = (figures["retrieval"][key] for key in ("pictures", "different_captions"))
            if 2 * different <= count:
                print(
                    f"Only {different} of {count} captions differ, and pictures that share one cannot be told apart by it. "
                    "If these are names of classes, write them into a file and give that as --classes.",
                    file=sys.stderr,
                )
        else:
            figures = {"zero_shot": classify_pictures(model, tokenizer, pictures, class_names, self.templates)}
        for name, value in next(iter(figures.values())).items():
            print(f"{name:<22}{value:>9,}" if isinstance(value, int) else f"{name:<22}{value:>9.1%}")
        return {**figures, "skipped_pictures": pictures.faults.reasons}


@dataclass
class Check:
    """Print versions, device, cores and a ten-step training, to quote in a report of a problem."""

    device: str | None = None
    """cpu, cuda or mps; if not given, cuda where there is one, or else cpu."""
    json: Path | None = None
    """Write the results to this file, too."""

    def __call__(self) -> dict:
        device = find_device(self.device)
        facts = {
            "minclip": package_version("minclip"),
            "python": platform.python_version(),
            "system": platform.platform(),
        }
        facts |= {
            name: package_version(name) for name in ("torch", "numpy", "matplotlib", "tokenizers", "scikit-learn")
        }
        facts |= {"device": describe_device(device)}
        preset = find_preset("cpu")
        steps = replace(preset.train, images_seen=10 * preset.train.batch_size, log_every=1)
        _, _, records = train_on_glyphs(
            replace(preset, train=steps), load_atlas(preset.model.image_resolution), None, device
        )
        facts["ten steps"] = (
            f"loss {records[0]['loss']:.3f} to {records[-1]['loss']:.3f} in {records[-1]['seconds']:.1f} s"
        )
        for name, fact in facts.items():
            print(f"{name:<14}{fact}")
        return facts


@dataclass
class Experiment:
    """Measure a claim made for CLIP. `quick` takes a minute or two on two cores; `recorded` is what the README tells."""

    name: Annotated[
        Literal[
            "architectures",
            "batch_size",
            "bias",
            "boundaries",
            "broken_clips",
            "class_design",
            "fine_grained",
            "objectives",
            "pretraining",
            "probes",
            "prompts",
            "robustness",
        ],
        tyro.conf.Positional,
    ]
    """Which claim."""
    preset: Literal["quick", "recorded"] = "quick"
    """The scale."""
    seeds: int | None = None
    """For recorded alone: how often whatever is trained is trained anew, 3 times if not given, for figures with a spread."""
    runs: Path = Path("runs/experiments")
    """Folder in which trained models are kept, for the next experiment to find."""
    photographs: str | None = None
    """For boundaries alone: labelled photographs to test on, too; a hub data set or a folder, with splits train and test."""
    picture: Path | None = None
    """Draw the result into this file (PNG, PDF)."""
    device: str | None = None
    """cpu, cuda or mps; if not given, cuda where there is one, or else cpu."""
    json: Path | None = None
    """Write the results to this file, too, with where they come from."""

    def __call__(self) -> dict:
        if self.seeds is not None and self.preset == "quick":
            raise MinclipError("--seeds belongs to --preset recorded; quick trains everything once.")
        seeds = 1 if self.preset == "quick" else 3 if self.seeds is None else self.seeds
        if seeds < 1:
            raise MinclipError(f"seeds is {seeds}; train at least once.")
        if self.photographs is not None and self.name != "boundaries":
            raise MinclipError(f"--photographs belongs to the experiment boundaries; {self.name} makes no use of them.")
        experiment = import_module(f"minclip.experiments.{self.name}")
        setting = Setting(self.preset, seeds, find_device(self.device), self.runs, self.photographs)
        began = perf_counter()
        results = {**experiment.run(setting), "provenance": provenance(setting, perf_counter() - began)}
        print(experiment.as_text(results))
        return results

    def draw(self, results: dict) -> None:
        plots.write(import_module(f"minclip.experiments.{self.name}").plot, results, self.picture)


@dataclass
class Bench:
    """Measure speed and memory: against open_clip and transformers on the same weights, and as candidates grow."""

    what: tuple[Literal["throughput", "large-batch", "growth"], ...] = ("throughput", "large-batch", "growth")
    """Which benchmarks to run."""
    models: tuple[str, ...] = ()
    """For throughput, the models to run, by how their names begin (ViT-B/32, ViT-B/16, RN50, glyphs); all if not given."""
    rounds: int = 7
    """How often the rivals take turns."""
    ways: tuple[Literal["eager", "compiled"], ...] = ()
    """For throughput, how the models run; if not given, both on a GPU, and eager on a CPU, where compiling takes minutes."""
    device: str | None = None
    """cpu, cuda or mps; if not given, cuda where there is one, or else cpu."""
    picture: Path | None = None
    """Draw the growth of time and memory into this file (PNG, PDF)."""
    json: Path | None = None
    """Write the results to this file, too."""

    def __call__(self) -> dict:
        if self.rounds < 1:
            raise MinclipError(f"rounds is {self.rounds}; let the rivals run at least once.")
        if self.picture is not None and "growth" not in self.what:
            raise MinclipError("--picture draws the growth of time and memory; add growth to --what.")
        folder = Path(__file__).parent.parent / "tests" / "benchmarks"
        if not folder.is_dir():
            raise MinclipError(
                "The benchmarks are not installed with the package; run them in a copy of its repository."
            )
        sys.path.insert(0, str(folder))
        import growth
        import throughput

        sys.stdout.reconfigure(line_buffering=True)  # what was measured is seen, even if the rest is not waited for
        device, report = find_device(self.device), {}
        ways = self.ways or (("eager", "compiled") if device.type == "cuda" else ("eager",))
        size, chunk = (32_768, 1024) if device.type == "cuda" else (1024, 256)
        parts = {
            "throughput": lambda: throughput.bench(device, self.rounds, self.models, ways),
            "large-batch": lambda: throughput.bench_large_batch(device, size, chunk),
            "growth": lambda: growth.bench(device),
        }
        for name in parts:
            if name in self.what:
                try:
                    report[name] = parts[name]()
                except torch.OutOfMemoryError as error:  # on a small GPU; the other parts may fit
                    print(f"{name} is left out, as memory ended: {str(error).splitlines()[0]}")
        return report

    def draw(self, results: dict) -> None:
        import growth

        if "growth" in results:
            plots.write(growth.plot, results["growth"], self.picture)


@dataclass
class Progress:
    """Show which exercises pass their visible checks, by running your notebooks; edits nothing."""

    place: Annotated[Path, tyro.conf.Positional] = Path("exercises")
    """The folder of exercises, that of one assignment, or a notebook, saved."""
    json: Path | None = None
    """Write the results to this file, too."""

    def __call__(self) -> dict:
        from . import progress  # brings IPython, slow to import and needed only here

        exercises = []
        for path in progress.find_notebooks(self.place):
            of_notebook = progress.run_notebook(path)
            print(progress.as_text(of_notebook), flush=True)  # as they come: some notebooks take a while
            exercises += of_notebook
        return {"exercises": [asdict(exercise) for exercise in exercises]}


ABOUT = "Build CLIP, train it, and measure what is claimed for it. Each command has its own --help."
COMMANDS = {
    "demo": Demo, "pretrain": Pretrain, "evaluate": Evaluate, "experiment": Experiment, "bench": Bench, "check": Check, "progress": Progress,
}  # fmt: skip


def find_device(name: str | None) -> torch.device:
    """The named device; if none is named, cuda where there is one, or else cpu. Raises MinclipError where it is not."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
        device = torch.device(name)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # random states are the current GPU's
        return device
    except (RuntimeError, AssertionError) as error:
        raise MinclipError(
            f"The device {name!r} cannot be used: {str(error).splitlines()[0]} Try --device cpu."
        ) from error


def check_outputs(command) -> None:
    """Before the work, whether what is to be written at its end can be. Raises MinclipError where it cannot."""
    picture = getattr(command, "picture", None)
    if picture is not None and picture.suffix not in (".png", ".pdf", ".svg"):
        raise MinclipError(f"--picture is {picture}; let its name end in .png, .pdf or .svg.")
    for path in filter(None, (picture, command.json)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
        except OSError as error:
            raise MinclipError(f"{path} cannot be written: {error}. Name another file.") from error


def name_skipped_fonts(skipped: dict[str, str]) -> None:
    """Count and name on stderr the font files that gave no pictures."""
    if skipped and distributed.rank() == 0:
        print(f"\n{len(skipped)} font file{'s' * (len(skipped) > 1)} skipped:", file=sys.stderr)
        for path, reason in skipped.items():
            print(f"  {path}: {reason}", file=sys.stderr)


def package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def parse(arguments: list[str]):
    """The command with its options. A recipe's defaults are those of the preset that is named."""
    name = arguments[0] if arguments else ""
    if name in COMMANDS and issubclass(COMMANDS[name], Recipe):
        preset = named_preset(arguments)
        default = COMMANDS[name](preset=preset, recipe=find_preset(preset))
        if name == "pretrain":
            default.run = Path("runs") / preset
        return tyro.cli(COMMANDS[name], args=arguments[1:], default=default, prog=f"python -m minclip {name}")
    return tyro.extras.subcommand_cli_from_dict(COMMANDS, args=arguments, prog="python -m minclip", description=ABOUT)


def named_preset(arguments: list[str]) -> str:
    """The value of --preset, read before the rest, since it decides the other defaults."""
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        if argument == "--preset":
            return following
        if argument.startswith("--preset="):
            return argument.removeprefix("--preset=")
    return "cpu"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        check_outputs(command)
        with distributed.joined():
            if distributed.world_size() > 1 and not isinstance(command, Pretrain):
                raise MinclipError("Of all commands torchrun helps pretrain alone; run this one without it.")
            results = command()
            if command.json is not None and distributed.rank() == 0:
                write_json(command.json, results)
        if getattr(command, "picture", None) is not None:  # last, so that a drawing that fails costs no results
            command.draw(results)
        sys.stdout.flush()  # while we are here to notice that nobody reads it
    except MinclipError as error:
        print(f"minclip: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read what we print, as `head` does, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the rest goes as Python ends
        return 1
    except torch.OutOfMemoryError as error:
        print(
            f"minclip: The GPU's memory ended ({str(error).splitlines()[0]}) Embed fewer pairs at a time "
            "(--train.chunk), take a smaller batch or preset, or --device cpu.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt as stop:
        print(f"\nminclip: {str(stop) or 'Stopped.'}", file=sys.stderr)
        return 130
    return 0
