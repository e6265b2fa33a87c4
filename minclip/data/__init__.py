"""Pictures that came with names: fonts (`glyphs`, `painting`), Hugging Face data sets (`hub`)."""
