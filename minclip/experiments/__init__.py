"""One short file for each claim made for CLIP: what `python -m minclip experiment NAME` runs.

Each has `run(setting) -> dict` (plain data, with `claims` for the README's table), `as_text(results)`
and `plot(results)`. What they share is in `common.py`.
"""
