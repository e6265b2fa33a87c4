"""For nbgrader: feedback without the hidden checks. Copy this file to the top of your course."""

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import ClearHiddenTests, GetGrades, NbGraderPreprocessor


class ShortenErrors(NbGraderPreprocessor):
    """Leaves of a hidden check's error its last line: the lines above it quote the check."""

    def preprocess_cell(self, cell, resources, cell_index):
        if cell.metadata.get("nbgrader", {}).get("grade_id", "").endswith("-hidden"):
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    output.traceback = output.traceback[-1:]
        return cell, resources


c = get_config()  # noqa: F821 - nbgrader defines it
c.GenerateFeedback.preprocessors = [GetGrades, ClearHiddenTests, ShortenErrors, CSSHTMLHeaderPreprocessor]
