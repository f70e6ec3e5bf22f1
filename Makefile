# Targets a person types. Each sets itself up.
.PHONY: setup test test-house test-all check format bench lock clean
bin := .venv/bin

setup: .venv/requirements-dev.lock

.venv/requirements-dev.lock: requirements-dev.lock requirements.lock
	@scripts/setup requirements-dev.lock

test: setup ## the default suite
	$(bin)/python -P -m pytest -m "not slow and not house" -n 3 --dist loadfile

test-house: setup ## whole engines, through every door and killed in every part
	$(bin)/python -P -m pytest -m "house and not slow" -n 3 --dist loadfile

test-all: setup ## with the long campaigns, and all examples of each property
	TEST_EXAMPLES=all $(bin)/python -P -m pytest

check: setup ## format, lint, strict types, import contracts, locks
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/lint-imports --no-cache
	$(bin)/python -P scripts/check_locks.py

format: setup
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

bench: setup ## every benchmark, as tables
	@for b in benchmarks/[a-z]*.py; do echo "== $$b"; $(bin)/python -P $$b || exit 1; done

lock: setup ## resolve again after a change of pyproject.toml
	@scripts/lock

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
