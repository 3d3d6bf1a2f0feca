# The commands of the README. Each installs what it needs on a Debian machine, as root or by sudo,
# and otherwise says what is missing; a Rust toolchain has to be there.

# `make demo DEMO='--rate 100 --duration 60s'`
DEMO =
# `make faults FAULTS='--seeds 3 --seconds 60 --seed 7'`
FAULTS =
# `make simulation SEEDS=100000`
SEEDS = 10000

.PHONY: demo test simulation test-all-postgres faults bench deb deb-test

# A private Postgres, traffic, the daemon, and the changes as a client sees them. Ctrl-C ends it.
demo:
	.ci/needs cargo cc postgres
	cargo build --locked --bin walcast
	target/debug/walcast demo $(DEMO)

# Everything that has to be right before a commit; the cheapest complaint comes first.
test:
	.ci/needs cargo fmt clippy cc postgres node nginx haproxy curl openssl systemd psycopg
	cargo fmt --check
	cargo clippy --all-targets --features otlp --locked -- -D warnings
	.ci/tests
	.ci/tests --features otlp --test otlp
	cargo test --locked --doc
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	if [ -x tests/clients/run ]; then tests/clients/run; fi
	if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; fi

# The simulation of tests/simulation with many more seeds than `make test` tries.
simulation:
	.ci/needs cargo cc
	WALCAST_SEEDS=$(SEEDS) cargo test --locked --test simulation -- --nocapture

# The tests against real servers, on every supported version of Postgres.
test-all-postgres:
	.ci/needs cargo cc postgres npm
	.ci/all-postgres

# The delivery contract under faults: daemon and database killed, stopped and cut off while rows are
# written and watched, and an independent checker; docs/guarantees.md says what it asserts. Three
# quarters of an hour.
faults:
	.ci/needs cargo cc postgres
	.ci/faults $(FAULTS)

# Deliveries and changes per second, latency, memory, next to limits and to what one would write
# instead; half an hour. docs/benchmarks.md says what the figures mean.
bench:
	.ci/needs cargo cc postgres npm
	cargo bench --locked --bench load

# The Debian package, in target/debian; docs/install.md says how to go on.
deb:
	.ci/needs cargo cc binutils
	.ci/deb

# The package tried in a Debian of its own, with systemd running: installed, started, restarted,
# upgraded, purged. As root; ten minutes at the first time.
# `make deb-test DEB=--debug` packs the program that the tests use.
DEB =
deb-test:
	.ci/needs cargo cc binutils nspawn
	.ci/deb-test $(DEB)
