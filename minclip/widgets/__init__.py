"""Things to touch: some ideas of CLIP are understood with the hands.

| widget | lesson | what one does |
|---|---|---|
| `Search` | 00 | type words, see the nearest pictures; press a picture to search by it |
| `Draw` | 00 | draw, or open a picture, and read the probabilities of one's own class names |
| `Derivation` | 04 | step through the loss, formula beside matrix |
| `Temperature` | 04 | turn the scale and N; matrix, softmax and loss move together |
| `TrainingWindow` | 05 | start, pause and resume a run, and watch its matrix turn diagonal |
| `ClassifierDesigner` | 06, 11 | edit class names and templates, add distractors, watch the errors move |

Each is an ipywidgets `VBox`: make it, and let it be the last line of a cell. What it shows can also be read
from its attributes, so that a cell below can go on with it. Bad input is answered in the widget, in words.
"""

from .derivation import Derivation
from .designer import ClassifierDesigner
from .draw import Draw
from .search import Search
from .temperature import Temperature
from .training import TrainingWindow

__all__ = ["ClassifierDesigner", "Derivation", "Draw", "Search", "Temperature", "TrainingWindow"]
