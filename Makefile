# session-worker. `make` builds, `make test` proves, `make help` lists the rest.
#
# FLAVOUR=release (hardened) | asan (address and undefined behaviour) | cov (coverage); all output
# goes to $(BUILD)/$(FLAVOUR)/. CC, CFLAGS, LDFLAGS, DESTDIR and PREFIX are respected; V=1 shows the
# commands.

FLAVOUR ?= release
BUILD   ?= build
OUT     := $(BUILD)/$(FLAVOUR)
PREFIX  ?= /usr/local
SYSCONFDIR ?= /etc
KAFKA   := $(BUILD)/kafka/.fetched
PYTHON  := /usr/bin/python3
STRIP   ?= strip
Q       := $(if $(V),,@)
comma   := ,
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo)

# ---- what it stands on: Debian 12 or 13 ----

BUILD_DEPS := gcc libc6-dev make pkg-config librdkafka-dev libcurl4-openssl-dev libcjson-dev \
              libconfig-dev libevent-dev libssl-dev uthash-dev
TEST_DEPS  := libcmocka-dev binutils clang-format-19 python3 python3-confluent-kafka kcat util-linux \
              default-jre-headless maven systemd python3-yaml python3-jsonschema
DEMO_DEPS  := python3 python3-confluent-kafka util-linux
CI_DEPS    := clang libclang-rt-dev valgrind gcovr patch debootstrap
PKGS       := rdkafka libcurl libcjson libconfig libevent libssl libcrypto

# ---- how it is compiled ----

WARN := -Wall -Wextra -Wformat=2 -Wconversion -Wsign-conversion -Wshadow -Wvla -Wstrict-prototypes \
        -Wmissing-prototypes -Wimplicit-fallthrough -Wnull-dereference -Wundef -Wwrite-strings

FLAVOUR_release = -O2 -g -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fPIE \
                  -fstack-clash-protection -fno-delete-null-pointer-checks -fno-strict-overflow $(HARDER)
FLAVOUR_asan   := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FLAVOUR_cov    := -O0 -g --coverage
FLAVOUR_fuzz   := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK_release   := -pie -Wl,-z,relro,-z,now,-z,noexecstack
LINK_asan      := -fsanitize=address,undefined
LINK_cov       := --coverage
LINK_fuzz      := -fsanitize=fuzzer,address,undefined

# Asked once, and only by a recipe: by then `deps` has brought the compiler and pkg-config.
once   = $(eval $(1) := $(2))$(2)
try    = $(shell $(CC) -Werror $(1) -x c -c -o /dev/null /dev/null 2>/dev/null && echo $(1))
HARDER = $(call once,HARDER,$(foreach f,-fcf-protection=full -ftrivial-auto-var-init=zero \
                                       -fstrict-flex-arrays=3,$(call try,$(f))))
PKG_CFLAGS = $(call once,PKG_CFLAGS,$(shell pkg-config --cflags $(PKGS)))
PKG_LIBS   = $(call once,PKG_LIBS,$(shell pkg-config --libs $(PKGS)))

ALL_CFLAGS  = -std=gnu11 -I. -D_GNU_SOURCE $(WARN) $(WERROR) $(FLAVOUR_$(FLAVOUR)) -fno-common -pthread \
              $(PKG_CFLAGS) $(CFLAGS)
ALL_LDFLAGS = $(LINK_$(FLAVOUR)) -pthread $(LDFLAGS)

# ---- the programs: main, io -> core -> provider -> common ----

all: $(OUT)/session-worker $(OUT)/sessionctl $(OUT)/daytona-sim ## build the three programs

objects = $(patsubst %.c,$(OUT)/%.o,$(wildcard $(1)))
LAYERS := $(addprefix $(OUT)/,io.a core.a provider.a common.a)

$(OUT)/common.a:   $(call objects,common/*.c)
$(OUT)/provider.a: $(call objects,worker/provider/*.c)
$(OUT)/core.a:     $(call objects,worker/core/*.c)
$(OUT)/io.a:       $(call objects,worker/io/*.c)
$(OUT)/ctl.a:      $(filter-out %/main.o,$(call objects,worker/ctl/*.c))
$(OUT)/sim.a:      $(call objects,tests/sim/model*.c)

$(OUT)/session-worker: $(OUT)/worker/main.o $(LAYERS)
$(OUT)/sessionctl:     $(OUT)/worker/ctl/main.o $(OUT)/ctl.a $(LAYERS)
$(OUT)/daytona-sim:    $(OUT)/tests/sim/serve.o $(OUT)/sim.a $(OUT)/common.a


# For the tests: the simulator against recordings, and consumer and publisher without a core.
$(OUT)/sim-replay:     $(call objects,tests/sim/replay*.c) $(OUT)/sim.a $(OUT)/common.a
$(OUT)/tests/kafka/io_driver: $(OUT)/tests/kafka/io_driver.o $(LAYERS)

# The shipped objects with a wrapper around every effect, for dying, stopping or aborting there.
BREAKS := core_step job_parse http_send http_cancel consumer_open consumer_release consumer_leave \
          publisher_commit publisher_progress rd_kafka_begin_transaction \
          rd_kafka_send_offsets_to_transaction rd_kafka_commit_transaction
BREAKING := $(OUT)/tests/breaking/session-worker
$(BREAKING): ALL_LDFLAGS += $(addprefix -Wl$(comma)--wrap=,$(BREAKS))
$(BREAKING): $(OUT)/tests/breaking/break.o $(OUT)/worker/main.o $(LAYERS)

$(OUT)/tests/bench/bare: $(OUT)/tests/bench/bare.o
$(OUT)/tests/bench/bare_producer: $(OUT)/tests/bench/bare_producer.o $(OUT)/tests/bench/meter.o $(OUT)/common.a
$(OUT)/tests/bench/publish: $(OUT)/tests/bench/publish.o $(OUT)/tests/bench/meter.o $(LAYERS)
BENCHES := $(addprefix $(OUT)/tests/bench/,bare bare_producer publish)
$(OUT)/demo-broker: $(OUT)/tests/demo/broker.o $(OUT)/common.a

PROGRAMS := session-worker sessionctl daytona-sim demo-broker sim-replay tests/kafka/io_driver tests/bench/bare \
            tests/bench/bare_producer tests/bench/publish \
            tests/breaking/session-worker
$(addprefix $(OUT)/,$(PROGRAMS)):
	@echo "  LINK  $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -lm $(LDLIBS)

$(OUT)/%.a:
	@rm -f $@
	$(Q)ar rcs $@ $^

$(OUT)/%.o: %.c | deps
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# ---- seeing it work ----

# No shell in between: who ends make ends the demo.
DEMO = @FLAVOUR=$(FLAVOUR) BUILD=$(BUILD) exec $(PYTHON) tests/demo/demo.py

demo: all $(OUT)/demo-broker | demo-deps ## twenty sessions on an embedded broker and a simulated Daytona, then a summary
	$(DEMO)

dev: all $(OUT)/demo-broker | demo-deps ## the same stack, kept running until Ctrl-C
	$(DEMO) --keep

# ---- the unit tests: each links its layer's helpers, its own layer and those below it ----

UNIT     := $(patsubst %.c,$(OUT)/%,$(wildcard tests/unit/*/test_*.c))
RECORDED := $(patsubst %.c,$(OUT)/%,$(wildcard tests/unit/*/recordings_*.c))
helpers   = $(filter-out $(addsuffix .o,$(UNIT) $(RECORDED)),$(call objects,tests/unit/$(1)/*.c))
BELOW_common   := common.a
BELOW_provider := provider.a common.a
BELOW_core     := core.a provider.a common.a
BELOW_io       := io.a core.a provider.a common.a
BELOW_ctl      := ctl.a $(BELOW_io)
BELOW_sim      := sim.a common.a

define unit_rule
$(OUT)/tests/unit/$(1)/%: $(OUT)/tests/unit/$(1)/%.o $(call helpers,$(1)) $(addprefix $(OUT)/,$(BELOW_$(1)))
	$$(Q)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$^ $$(PKG_LIBS) -lm -lcmocka $$(LDLIBS)
endef
$(foreach layer,common provider core io ctl sim,$(eval $(call unit_rule,$(layer))))
$(UNIT:=.o) $(RECORDED:=.o): | test-deps

# ---- proving it ----

# A fuzz target is one file; with libFuzzer (FLAVOUR=fuzz, clang), else with a main that replays files.
FUZZ    := $(filter-out fuzz replay,$(basename $(notdir $(wildcard tests/fuzz/*.c))))
FUZZERS := $(addprefix $(OUT)/tests/fuzz/,$(FUZZ))
FUZZ_MAIN := $(if $(filter fuzz,$(FLAVOUR)),,$(OUT)/tests/fuzz/replay.o)

$(FUZZERS): $(OUT)/tests/fuzz/%: $(OUT)/tests/fuzz/%.o $(OUT)/tests/fuzz/fuzz.o $(FUZZ_MAIN) $(OUT)/ctl.a $(LAYERS)
	@echo "  LINK  $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -lm $(LDLIBS)

RUN = @FLAVOUR=$(FLAVOUR) BUILD=$(BUILD) $(PYTHON) tests/run.py

test: all $(UNIT) $(OUT)/explore $(OUT)/demo-broker $(OUT)/tests/kafka/io_driver $(BREAKING) $(FUZZERS) $(KAFKA) ## lint, unit, corpora, simulation and integration tests; one closing line
	$(RUN) lint unit corpora simulation integration

lint: $(OUT)/core.a $(OUT)/provider.a $(OUT)/sim.a | test-deps ## layers, purity, banned functions, formatting
	$(RUN) lint

unit: $(UNIT) ## the unit tests (ONLY=name picks by name)
	$(RUN) unit $(ONLY)

unit-programs: $(UNIT)

integration: all $(OUT)/demo-broker $(OUT)/tests/kafka/io_driver $(BREAKING) $(KAFKA) ## the integration tests (ONLY as well; VALGRIND=1 runs workers under valgrind)
	$(RUN) integration $(ONLY)

coverage: ci-deps ## lines of core and provider that their unit tests reach; at least 90 %
	@find $(BUILD)/cov -name '*.gcda' -delete 2>/dev/null || true
	@$(MAKE) --no-print-directory FLAVOUR=cov unit ONLY="core/ provider/"
	gcovr --root . --object-directory $(BUILD)/cov --filter 'worker/(core|provider)/' \
	      --print-summary --fail-under-line 90 $(BUILD)/cov

recordings: $(OUT)/sim-replay $(RECORDED) ## real answers of Daytona (RECORDINGS=folder) against provider and simulator
	@for t in $^; do $$t $(RECORDINGS) || exit 1; done

# Links nothing but what it uses, and the project's objects with an allocator that can go back in time.
WRAPPED := malloc calloc realloc free strdup vasprintf __vasprintf_chk
$(OUT)/explore: $(call objects,tests/sim/explore*.c tests/sim/world*.c) $(OUT)/sim.a $(OUT)/core.a $(OUT)/provider.a $(OUT)/common.a
	@echo "  LINK  $@"
	$(Q)$(CC) $(ALL_LDFLAGS) $(WRAPPED:%=-Wl,--wrap=%) -Wl,--as-needed -o $@ $^ $(PKG_LIBS) -lm $(LDLIBS)

explore: $(OUT)/explore ## random schedules with faults, in virtual time (RUNS=n, SEED=n)
	$(OUT)/explore --runs $(or $(RUNS),200) --seed $(or $(SEED),1)

explore-all: $(OUT)/explore ## every schedule of two jobs of one session with any two faults; some minutes (FAULTS=1: less than one)
	$(OUT)/explore --exhaustive --faults $(or $(FAULTS),2)

soak: all $(OUT)/tests/kafka/io_driver $(BREAKING) $(KAFKA) ## the torture for long, on three brokers (SOAK_JOBS=10000 SOAK_FAULTS=200 SEED=4), and other long forms
	FLAVOUR=$(FLAVOUR) BUILD=$(BUILD) $(PYTHON) tests/kafka/soak.py
	@SOAK=1 JOBS=2 FLAVOUR=$(FLAVOUR) BUILD=$(BUILD) $(PYTHON) tests/run.py integration test_freeze test_group \
	    test_lost_answers test_storm test_window

bench: all $(BENCHES) $(KAFKA) ## cost, delay and footprint beside bare loops of libcurl and librdkafka (BENCH="--quick" …)
	FLAVOUR=$(FLAVOUR) BUILD=$(BUILD) $(PYTHON) tests/bench/run.py $(BENCH)

fuzzers: $(FUZZERS)

corpora: $(FUZZERS) ## the inputs that the fuzz targets keep, once each
	$(RUN) corpora

fuzz: ci-deps ## everything that parses, under libFuzzer (SECONDS_EACH=60 ONLY=job)
	@$(MAKE) --no-print-directory FLAVOUR=fuzz CC=clang fuzzers
	BUILD=$(BUILD) $(PYTHON) tests/fuzz/run.py --seconds $(or $(SECONDS_EACH),60) $(ONLY)

# Out of Debian's package, which installed would start a Prometheus.
$(BUILD)/promtool:
	@mkdir -p $(@D)/prometheus
	$(Q)cd $(@D)/prometheus && { apt-get -qq download prometheus 2>/dev/null || \
	    { $(SUDO) apt-get -qq update && apt-get -qq download prometheus 2>/dev/null; }; } && \
	    dpkg-deb -x prometheus_*.deb . && cp usr/bin/promtool ../promtool
	@rm -rf $(@D)/prometheus

alerts: $(BUILD)/promtool ## the alerts, by Prometheus' own tests
	$< check config config/prometheus/prometheus.yml
	$< test rules tests/integration/alerts.yml

mutants: ci-deps $(UNIT) $(OUT)/explore ## break the worker in 19 ways; the explorer must find every one
	BUILD=$(BUILD) $(PYTHON) tests/mutants/run.py

mutation: ci-deps ## small mechanical changes of the core, and the share that a test notices (SAMPLE=200, 0 for all; SEED=1)
	BUILD=$(BUILD) $(PYTHON) tests/mutants/mutate.py --sample $(or $(SAMPLE),200) --seed $(or $(SEED),1)

format: | test-deps ## clang-format every source file in place
	$(PYTHON) tests/lint/formatting.py --fix

kafka: $(KAFKA) ## fetch the Kafka that the tests start, once

$(KAFKA): tests/kafka/pom.xml | test-deps
	@mkdir -p $(@D)
	@echo "  FETCH Kafka"
	$(Q)mvn -q -B -ntp -f $< dependency:copy-dependencies -DincludeScope=runtime \
	    -DoutputDirectory=$(abspath $(@D))/libs
	@touch $@

# ---- packages: apt is asked only when dpkg misses something ----

define install
@command -v dpkg-query >/dev/null || exit 0; \
have=$$(dpkg-query -W -f='$${Package}=$${db:Status-Status} ' $(1) 2>/dev/null); \
need=; for p in $(1); do case " $$have" in *" $$p=installed "*) ;; *) need="$$need $$p" ;; esac; done; \
test -z "$$need" && exit 0; echo "installing:$$need"; mkdir -p $(BUILD); \
apt() { $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$$@"; }; \
{ apt update && apt install -y --no-install-recommends $$need; } >$(BUILD)/apt.log 2>&1 || \
{ cat $(BUILD)/apt.log; exit 1; }
endef

deps: ## install what building needs (Debian)
	$(call install,$(BUILD_DEPS))

demo-deps: deps ## install what the demo needs
	$(call install,$(DEMO_DEPS))

test-deps: deps ## install what testing needs
	$(call install,$(TEST_DEPS))

ci-deps: test-deps ## install what the rest of CI needs
	$(call install,$(CI_DEPS))

# ---- the rest ----

SHARE := $(DESTDIR)$(PREFIX)/share/session-worker
UNITS := $(DESTDIR)$(PREFIX)/lib/systemd/system
ETC   := $(DESTDIR)$(SYSCONFDIR)/session-worker

install: all ## programs (STRIP= keeps their symbols), unit, schemas, alerts under $(DESTDIR)$(PREFIX); worker.cfg, if there is none, in /etc
	install -d $(DESTDIR)$(PREFIX)/bin $(SHARE)/schema $(UNITS) $(ETC)
	install -m 755 $(if $(STRIP),-s --strip-program=$(STRIP)) $(OUT)/session-worker $(OUT)/sessionctl $(DESTDIR)$(PREFIX)/bin
	install -m 644 config/worker.cfg config/prometheus/alerts.yml config/grafana/dashboards/*.json $(SHARE)
	install -m 644 config/schema/* $(SHARE)/schema
	install -D -m 644 README.md $(DESTDIR)$(PREFIX)/share/doc/session-worker/README.md
	sed 's#@PREFIX@#$(PREFIX)#; s#@SYSCONFDIR@#$(SYSCONFDIR)#' config/systemd/session-worker.service >$(UNITS)/session-worker.service
	chmod 644 $(UNITS)/session-worker.service
	test -e $(ETC)/worker.cfg || install -m 644 config/worker.cfg $(ETC)

image: ## the container image session-worker:local (needs Docker)
	docker build -f config/Dockerfile -t session-worker:local .

compose-test: $(KAFKA) ## docker-compose.yml with three workers, a crash and 500 sessions (needs Docker; COMPOSE="--stand-ins" without a registry)
	BUILD=$(BUILD) $(PYTHON) tests/compose/run.py $(COMPOSE)

clean: ## remove what was built, but for Kafka's jars
	rm -rf $(filter-out $(BUILD)/kafka,$(wildcard $(BUILD)/*))

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 14

.PHONY: all demo dev test lint unit unit-programs integration coverage recordings bench soak explore explore-all mutants format kafka deps demo-deps test-deps ci-deps install image compose-test alerts clean help fuzz fuzzers corpora mutation
.PRECIOUS: $(OUT)/%.o
.DELETE_ON_ERROR:
-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
