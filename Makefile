# Each target sets up .venv when it is missing or requirements.txt has changed; nothing else is needed.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: setup demo test lab book exercises bench check lint

setup: .venv/ready

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: setup
	$(BIN)/python -m minclip demo

# As many files at a time as there are cores, so one thread each.
test: export TQDM_DISABLE = 1
test: export OMP_NUM_THREADS = 1
test: setup lint
	$(BIN)/python -m pytest -n auto --dist loadscope
	$(BIN)/python -m pytest -n auto --dist loadscope --nbval --nbval-current-env --nbval-cell-timeout 300 notebooks $(wildcard solutions)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: setup
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_a_clip_in_five_minutes.ipynb

book: setup
	$(BIN)/python notebooks/book.py

# A course may hand out this repository without solutions/; there is then nothing to make.
ifneq ($(wildcard solutions),)
exercises: setup
	$(BIN)/python solutions/generate.py
endif

bench: setup
	$(BIN)/python -m minclip bench

check: setup
	$(BIN)/python -m minclip check
