/* A core in a world of our own: a provider whose every phase is one call and whose answers the test
 * scripts, a clock that the test moves, and the effects sorted by kind.
 *
 *   start(w, "S1", "");                          a record of partition 0, at its next offset
 *   expect_call(w, "create fleet.S1");           it is asked for, and becomes the current call
 *   ANSWER(w, .set = EXISTS, .box = "b1 mine");  what the provider makes of the answer to it
 *   expect_event(w, "S1", "session-ready");      in the batch that is to be committed
 *   committed(w);
 *
 * A call's text is its phase and what it is about: "find b1" by id, "find fleet.S1" by name; "+"
 * behind the phase is slot 1. Single quotes in a job's members stand for double ones. core_check()
 * follows every step. */
#ifndef TESTS_UNIT_CORE_FIXTURE_H
#define TESTS_UNIT_CORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/metrics.h"
#include "worker/core/core.h"

#define PARTITIONS 4
#define CALLS_MAX 4096
#define CALL_TEXT 160
#define ANNOUNCED_MS 25 /* after an assignment: its first batch is over, and so is its rest */

enum fake_scope { SCOPE_GENERAL, SCOPE_CREATES };

struct say { /* what an answer means */
    enum verdict verdict;
    uint32_t set, clear;
    enum error_code code;
    uint32_t after_ms;
    int http_status;
    const char *message, *words; /* ours, the provider's */
    const char *box;             /* written into the box: see box_write() */
    const struct rate *rate;
    bool more;         /* of a stream: it goes on */
    enum fault fault;  /* of the reply itself; for metrics only */
    int status;        /* likewise; 0: 200 */
    const char *boxes; /* of a list: boxes with ';' between them */
    const char *next;  /* of a list: the next cursor */
};

extern const struct provider_ops fake_ops;

struct world;
struct fake {
    struct provider provider;
    struct world *w;
};

struct pending {
    uint64_t id;
    enum step step;
    char text[CALL_TEXT];
    char job[64]; /* the event id of the job that asks; "": none */
};

struct world {
    struct config config;
    struct fake fakes[2];
    struct provider *providers[2];
    struct core *core;
    struct outbox out;
    uint64_t now_ns, wall_ms;
    int64_t next_offset[PARTITIONS];
    uint64_t record_age_ms; /* of the records to come */

    struct pending *calls; /* not answered and not cancelled */
    size_t n_calls;
    struct pending current; /* the last one that was expected */
    unsigned cancels;
    bool open[PARTITIONS];
    const struct batch *batch; /* to be committed */
    uint64_t batch_ns;         /* when it was begun */
    bool hold_hints;           /* a batch without messages is not committed by itself */
    bool parsed;               /* the last record was */
    bool parse_all;            /* whatever the core says */
    int32_t released[PARTITIONS];
    size_t n_released, releases;
    unsigned progress;
    char told[96];        /* the last progress: its step and its ce_id */
    char told_status[64]; /* its status, elapsed_ms and attempt */
    bool drained;
    cJSON *event; /* the last one that was expected */

    const struct say *say; /* during a step: the answer's meaning */
    uint32_t beside;       /* bits of phases that use slot 1 */
    uint32_t unsayable;    /* bits of phases whose ask refuses */
    uint32_t dumb;         /* bits of phases that have nothing to ask */
    char *ready_ids;       /* " id id " of committed ready events */
};

/* Two providers, "daytona" and "other"; partition 0 assigned from offset 0 with a fresh budget; no
 * sweep. */
int world_setup(void **state);
int world_teardown(void **state);
#define WORLD_TEST(fn) cmocka_unit_test_setup_teardown(fn, world_setup, world_teardown)

struct world *world_new(void); /* nothing assigned */
void world_free(struct world *);
void world_restart(struct world *); /* a new core, after the config was changed; nothing assigned */
void few_tokens(struct world *);    /* one create at once, three more a minute; partition 0 anew */

/* ---- inputs ---- */

void start(struct world *, const char *session, const char *members);
/* Delivered a second time, as far as the partition's new owner can tell: it looks first. */
void start_again(struct world *, const char *session, const char *members);
void stop(struct world *, const char *session, const char *members);
void delete(struct world *, const char *session, const char *members);
/* At any place; `what` is "start", "stop" or "delete". The partition's next offset follows it. */
void job_at(struct world *, int32_t partition, int64_t offset, const char *what,
            const char *session, const char *members);
void record_at(struct world *, int32_t partition, int64_t offset, const char *key,
               const char *value);
/* Assigned and opened, 25 ms later; `only`: the batch with its strike is still to come. */
void assign(struct world *, int32_t partition, int64_t offset, const char *metadata);
void assign_only(struct world *, int32_t partition, int64_t offset, const char *metadata);
void assign_started(struct world *, int32_t partition, int64_t offset, int64_t highest_started);
void revoke(struct world *, int32_t partition);
void lose(struct world *, int32_t partition);
void committed(struct world *);
void refused(struct world *);
void drain(struct world *);
void advance(struct world *, uint64_t ms); /* ticks whenever the core wants to */
void tick(struct world *);

extern const struct rate refused_key;
struct rate blocked_for(uint32_t ms); /* what a 429 says */

/* Answers the current call. */
void answer(struct world *, const struct say *);
#define ANSWER(w, ...) answer(w, &(const struct say){__VA_ARGS__})

/* ---- what the provider found, in short; each answers the current call ---- */

void found(struct world *, const char *box); /* LOOKED, EXISTS and what the words say */
void missing(struct world *);                /* LOOKED */
void made(struct world *, const char *id);   /* EXISTS: mine, ours, provisional, transient */
void done(struct world *, uint32_t facts);   /* OK */
void again(struct world *, uint32_t after_ms);
void retry(struct world *, enum error_code);
void lost(struct world *, const char *box);
void refuse(struct world *, enum error_code);

/* A look by the session's name is out, and finds the box, or none. */
void look_finds(struct world *, const char *session, const char *box);
void look_misses(struct world *, const char *session);

/* ---- expectations ---- */

void expect_call(struct world *, const char *text); /* among those not answered */
void expect_no_call(struct world *, const char *text);
void expect_calls(struct world *, size_t n);
void expect_quiet(struct world *);                  /* no call is out, no batch under way */
void expect_batch(struct world *, size_t messages); /* waits until it is begun */
void expect_offset(struct world *, int32_t partition, int64_t watermark); /* in the batch */
const char *batch_metadata(const struct world *, int32_t partition);      /* NULL: not in it */
/* The session's event in the batch becomes the current event. */
void expect_event(struct world *, const char *session, const char *type);
void expect_no_event(struct world *, const char *session);
void expect_field(struct world *, const char *path, const char *value); /* "null" for null */
/* A failed event; cleanup NULL: without a sandbox. */
void expect_failed(struct world *, const char *session, const char *code, const char *step,
                   const char *cleanup);

/* The batch under way goes through, and for so long nothing follows. */
void expect_end(struct world *, uint64_t ms);

/* ---- whole stretches ---- */

/* The job of a session whose create is out fails for good; its result is ready, or committed. */
void fail_now(struct world *, const char *session);
void fail_committed(struct world *, const char *session);
/* A start that comes as far as its first probe: its server has exited. */
void server_exits(struct world *, const char *session, const char *members, const char *id);
/* From the create call on: to the look whether it has started, to the launch, to the first probe,
 * to KEEP, to the last probe, to the batch with the ready event; the box is called `id`. */
void to_start(struct world *, const char *session, const char *id);
void to_launch(struct world *, const char *session, const char *id);
void to_probe(struct world *, const char *session, const char *id);
void to_keep(struct world *, const char *session, const char *id);
void to_last_probe(struct world *, const char *session, const char *id);
void to_ready(struct world *, const char *session, const char *id);
/* From the launch, the first probe, the last one to the batch. */
void launch_to_ready(struct world *, const char *session, const char *id);
void probe_to_ready(struct world *, const char *session, const char *id);
void last_probe_to_ready(struct world *, const char *session, const char *id);
/* The same of a box that needs no KEEP; "start" wakes it. */
void kept_start_to_ready(struct world *, const char *session, const char *id);
void kept_launch_to_ready(struct world *, const char *session, const char *id);
void kept_probe_to_ready(struct world *, const char *session, const char *id);
/* From the create call on: it does not start, and is to be destroyed; to the look before that. */
void to_destroy(struct world *, const char *session, const char *id);
/* A sweep that often, of a partition 0 anew at offset 5: to its first listing. */
void to_listing(struct world *, int every_seconds);
/* From the look before a destroy to its stop. */
void destroy_to_stop(struct world *, const char *id);

struct core_status status_of(const struct world *);
/* "queued", "parked", …; NULL: no such job. */
const char *phase_of(const struct world *, int32_t partition, int64_t offset);
struct partition_view view_of(const struct world *, int32_t partition);

#endif
