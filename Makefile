# Every verb of the project: `make help` lists them, and CI calls nothing else.
# It runs on a machine with Python, Node, npm, make and git; `make install` brings everything else, hash by hash.

PYTHON ?= python3
TEAM ?= quotes
BIN := .venv/bin
comma := ,

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Many images set this; without bytecode files Python compiles all of aws_cdk at every synthesis (+4 s).
unexport PYTHONDONTWRITEBYTECODE
# jsii's banner about this Node comes at every start; `make install` says the same once, in one line.
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20
# Trust the certificates that the machine trusts, as pip does: behind a company's proxy nothing else works.
export UV_SYSTEM_CERTS := true

.PHONY: help
help: ## List these verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: .venv/.installed node_modules/.installed ## Install everything, pinned and hashed, into .venv and node_modules

.PHONY: local
local: install ## Rehearse a whole environment on the embedded AWS, to the report: make local TEAM=quotes
	@$(BIN)/rft up $(TEAM)

# Two at a time, because the embedded tests mostly wait for what they started; each shows its output when it
# has ended.
.PHONY: test
test: install ## Everything that CI checks
	@$(MAKE) --jobs=2 --output-sync=target embedded lint types unit infra

.PHONY: lint
lint: install ## Formatting and lint rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

.PHONY: types
types: install ## Static types of infra, lambdas and rft
	$(BIN)/mypy

.PHONY: unit
unit: install ## Tests that need no template and no AWS
	$(BIN)/python -m pytest tests/unit

.PHONY: infra
infra: install ## Tests of the templates
	$(BIN)/python -m pytest tests/infra

.PHONY: embedded
embedded: install ## Tests that deploy to the embedded AWS and train there
	$(BIN)/python -m pytest tests/embedded

# What a delivery pipeline calls, in this order; .github/workflows does, and any other pipeline can.
STAGE ?= dev
SINCE ?=
PARTS ?= build/parts
FROM ?= build/retired.toml
RUN ?=
TARGET ?= aws
# What the sources are called; a pipeline whose checkout has no history says it.
REVISION ?= $(shell git describe --always --dirty --abbrev=40 '--exclude=*')
REGION ?= us-east-1

.PHONY: changed
changed: install ## Print the teams and stacks that the commits since a revision touch: make changed SINCE=origin/main
	@$(BIN)/rft ci changed --since "$(SINCE)"

.PHONY: assembly
assembly: install ## Synthesize teams once, into cdk.out: make assembly TEAMS=quotes,support
	@$(BIN)/rft package --target "$(TARGET)" $(foreach team,$(subst $(comma), ,$(TEAMS)),--team "$(team)")
	@rm -rf cdk.out
	@PATH="$(CURDIR)/$(BIN):$$PATH" node_modules/.bin/cdk synth --quiet --no-notices --build true \
		--context "target=$(TARGET)" $(if $(TEAMS),--context "team=$(TEAMS)") --output cdk.out \
		--context "revision=$(REVISION)" $(if $(DELIVERY),--context "delivery=$(DELIVERY)")

.PHONY: review
review: install ## Say what a change means for teams, as Markdown: make review TEAMS=quotes SINCE=origin/main
	@status=0; $(foreach team,$(subst $(comma), ,$(TEAMS)),$(BIN)/rft check "$(team)" --markdown --against "$(SINCE)" || status=1;) exit $$status

.PHONY: diff
diff: install ## Compare cdk.out with what is deployed, as Markdown: make diff STACKS=rft-quotes-dev
	@$(BIN)/rft ci diff $(STACKS) $(if $(ALLOW_LOSS),--allow-loss)

.PHONY: comment
comment: install ## Put the parts of a comment together, as long as GitHub takes: make comment PARTS=build/parts
	@$(BIN)/rft ci comment "$(PARTS)" --run "$(RUN)"

.PHONY: deploy
deploy: install ## Deploy cdk.out as it is: make deploy STACKS="rft-quotes-dev rft-support-dev"
	@$(BIN)/rft ci deploy $(STACKS)

.PHONY: smoke
smoke: install ## Try out what was deployed: make smoke TEAMS=quotes STAGE=dev
	@$(BIN)/rft ci smoke "$(TEAMS)" --stage "$(STAGE)"

.PHONY: fleet
fleet: install ## Look at all stages in all accounts, into build/fleet.html and build/fleet.json
	@mkdir -p build
	@$(BIN)/rft status --aws --json --html build/fleet.html >build/fleet.json

.PHONY: expired
expired: install ## Print the stages whose last day is over, or a team's: make expired TEAM=quotes STAGE=dev
	@$(BIN)/rft expired $(if $(filter command line,$(origin TEAM)),--team "$(TEAM)" --stage "$(STAGE)")

.PHONY: retire
retire: install ## Take a stage away, from its runs to its stack: make retire TEAM=quotes STAGE=dev
	@$(BIN)/rft retire "$(TEAM)" --stage "$(STAGE)" $(if $(YES),--yes) $(if $(PURGE),--purge $(if $(YES),--yes))

.PHONY: ended
ended: install ## Take a retired stage out of teams/: make ended TEAM=quotes STAGE=dev FROM=build/retired.toml
	@$(BIN)/rft ci ended "$(TEAM)" --stage "$(STAGE)" --from "$(FROM)"

.PHONY: drift
drift: install ## List what was changed by hand: make drift STACKS=rft-quotes-dev
	@$(BIN)/rft ci drift $(STACKS) --region "$(REGION)" $(if $(LOOKUP_ROLE),--lookup-role)

.PHONY: bench
bench: install ## What people wait for and what rewards cost: synthesis, `make local`, the reward functions
	$(BIN)/python -m tests.benchmarks

# Each list is solved together with the others, so a version that is tested is the version that is deployed.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate $(UPGRADE)
LISTS = $(wildcard requirements/*.in requirements/rewards/*.in teams/*/requirements.in)

.PHONY: lock
lock: .venv/.uv ## Lock what pyproject.toml, package.json and the *.in files name: make lock UPGRADE=--upgrade
	$(COMPILE) pyproject.toml --group embedded --group dev $(LISTS) --output-file requirements/dev.txt
	for list in $(LISTS); do \
		$(COMPILE) "$$list" --constraint requirements/dev.txt --output-file "$${list%.in}.txt" || exit 1; \
	done
	npm install --package-lock-only --loglevel=error

.PHONY: clean
clean: ## Stop the embedded AWS and remove what was built, except installations and reports
	@if [ -x $(BIN)/rft ]; then $(BIN)/rft down; fi
	rm -rf build cdk.out .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -not -path './node_modules/*' -prune -exec rm -rf {} +

# The stamps say when each list was last installed. pip installs uv and nothing else; uv does the rest. What
# they say goes to standard error: what a verb prints may be read by a program.
.venv/.uv: requirements/install.txt
	@$(PYTHON) -m rft.toolchain >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --only-binary=:all: --require-hashes -r $<
	@touch $@

.venv/.installed: .venv/.uv requirements/dev.txt pyproject.toml
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

node_modules/.installed: package.json package-lock.json .npmrc | .venv/.uv
	@npm ci --loglevel=error >&2
	@touch $@
