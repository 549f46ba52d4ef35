# Every target builds .venv by itself; only Python 3.11 or later, git and make are needed.
PYTHON ?= python3
BIN := .venv/bin
# The CPU build that CI tests with; a GPU machine keeps its own torch (see README).
TORCH ?= torch==2.13.0

.PHONY: demo test check format bench faults soak clean

demo: .venv/.installed
	rm -rf demo
	$(BIN)/sfllava notebook notebooks/demo.ipynb demo/demo.ipynb
	$(BIN)/jupyter nbconvert --log-level ERROR --to html demo/demo.ipynb
	$(BIN)/python -c "import json; [print(t, end='') for c in json.load(open('demo/demo.ipynb'))['cells'] for o in c.get('outputs', []) for t in o.get('text', [])]"
	@echo "demo/demo.html has the table and the figure; demo/budget.png is the figure alone"

test: .venv/.installed
	$(BIN)/python -m pytest $(ARGS)

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.installed
	$(BIN)/python bench/questions.py
	$(BIN)/python bench/preprocess.py
	$(BIN)/python bench/sweep.py
	$(BIN)/python bench/judging.py
	$(BIN)/python bench/explorer.py
	$(BIN)/python bench/plan.py

# every fault at full count, with a table in docs/faults.md
faults: .venv/.installed
	rm -f .faults.jsonl
	SFLLAVA_FAULTS=$(CURDIR)/.faults.jsonl $(BIN)/python -m pytest -n 2 tests/faults $(ARGS)
	SFLLAVA_FAULTS=$(CURDIR)/.faults.jsonl $(BIN)/python tests/faults/figures.py

soak: .venv/.installed
	$(BIN)/python bench/soak.py

.venv/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needed Python 3.11 or later, got " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e '.[notebooks,judge,cluster,dev]'
	touch $@

clean:
	rm -rf .venv demo
