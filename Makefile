# The environment is made from requirements.lock, hashes checked, whenever it is missing or older than the lock.
# Another interpreter: make test PYTHON=python3.12 VENV=.venv312
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
BENCHMARKS ?= $(wildcard $(patsubst %,benchmarks/%.py,roofline sampling update padding step rollout grading scaling peak))
# Which peers take part in benchmarks: all, none, or names. Each group has its own environment.
PEERS ?= all
PEER_STAMPS := .venv-peers/torch/.complete .venv-peers/tunix/.complete

.PHONY: demo test slow trackers chaos lint format bench peers env lock clean

demo: $(STAMP)  ## trains SmolLM2-135M on arithmetic, minutes on two cores
	$(BIN)/python launch.py --config quickstart.py --mesh 1x1 --workdir runs/quickstart

test: $(STAMP)  ## the test suite, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: $(STAMP)  ## the tests that take minutes, and no others; .ci/run runs them after `test`; SLOW="-k pair"
	$(BIN)/python -m pytest -m slow $(SLOW)

trackers: .venv-trackers/.complete  ## what `--track` names, with their local stores, in an environment of its own
	.venv-trackers/bin/python -m pytest --noconftest -m trackers tests/records/trackers/test_stores.py

chaos: $(STAMP)  ## strikes ten runs 60 times in all that they do, and four pairs, and looks what is lost; CHAOS="--runs 20"
	PYTHONPATH=. $(BIN)/python tests/chaos/chaos.py $(CHAOS)

lint: $(STAMP)  ## style, format and types, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)  ## what lint can put right by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) $(if $(filter none,$(PEERS)),,peers)  ## every benchmark, one after the other; PEERS=none: ours alone
	@test -n "$(BENCHMARKS)" || { echo "make bench: no script in benchmarks/; name some with BENCHMARKS=" >&2; exit 1; }
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; \
	  IGRPO_PEERS="$(PEERS)" PYTHONPATH=. $(BIN)/python $$script; done

peers: $(PEER_STAMPS)  ## the environments of the peers that benchmarks compare with; one that fails is reported there

env: $(STAMP)  ## the environment alone

lock: $(STAMP)  ## requirements.lock from pyproject.toml; newer versions with UPGRADE=--upgrade
	$(BIN)/uv pip compile pyproject.toml --extra dev --output-file requirements.lock --quiet $(UPGRADE) \
	  --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock"

clean:  ## removes the environment and caches; runs/ stays
	rm -rf $(VENV) .venv-peers .venv-trackers build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last, so an interrupted set-up starts over. setuptools comes first: with it the few packages that have
# no wheels are built without fetching build tools that no hash pins. Bytecode is compiled on all cores; pip uses one.
$(STAMP): requirements.lock
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "make: no $(PYTHON) here; install Python 3.11 or 3.12, or name one: make PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is no Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock: one to two minutes, once."
	@rm -rf $(VENV)
	@"$(PYTHON)" -m venv $(VENV)
	@awk '/^[^ ]/ { wanted = /^setuptools==/ } wanted' requirements.lock >$(VENV)/build.txt
	@$(PIP) install --require-hashes --requirement $(VENV)/build.txt && \
	  $(PIP) install --require-hashes --no-build-isolation --no-compile --requirement requirements.lock || \
	  { echo "make: pip failed, see above; it needs the package index, and pycosat a C compiler and Python's headers" \
	    "(Debian: apt install gcc python3-dev)" >&2; exit 1; }
	@$(BIN)/python -W ignore -m compileall -qq -j 0 -x '/(tests|transformers/models)/' $(VENV)/lib || true
	@touch $@

.venv-trackers/.complete: tests/records/trackers/requirements.txt
	@echo "Setting up .venv-trackers from $<: a minute, once."
	@rm -rf .venv-trackers
	@"$(PYTHON)" -m venv .venv-trackers
	@.venv-trackers/bin/python -m pip --quiet --disable-pip-version-check --no-input install --requirement $<
	@touch $@

# A peer that cannot be installed stops nothing: benchmarks show the reason, and the next `make peers` tries again.
$(PEER_STAMPS): .venv-peers/%/.complete: benchmarks/requirements-%.txt
	@echo "Setting up .venv-peers/$* from $<: some minutes, once."
	@rm -rf .venv-peers/$* && mkdir -p .venv-peers
	@if "$(PYTHON)" -m venv .venv-peers/$* >.venv-peers/$*.log 2>&1 && .venv-peers/$*/bin/python -m pip --quiet \
	  --disable-pip-version-check --no-input install --requirement $< >>.venv-peers/$*.log 2>&1; \
	then rm -f .venv-peers/$*.failed; touch $@; \
	else rm -rf .venv-peers/$*; grep -v '^ *$$' .venv-peers/$*.log | tail -n 1 >.venv-peers/$*.failed; \
	  echo "make: no environment for $*: $$(cat .venv-peers/$*.failed)" >&2; fi
