/* What is committed, and when: results, offsets, their order, their pace. */
#include <stdio.h>

#include "tests/unit/core/fixture.h"
#include "worker/core/backoff.h"
#include "worker/core/offsets.h"

static void start_many(struct world *w, int n)
{
    char session[16];
    for (int i = 0; i < n; i++) {
        snprintf(session, sizeof session, "S%d", i);
        start(w, session, "");
    }
}

/* The batch of its result says this watermark. */
static void fail_at(struct world *w, const char *session, int64_t watermark)
{
    fail_now(w, session);
    expect_batch(w, 1);
    expect_offset(w, 0, watermark);
}

static void fail_committed_at(struct world *w, const char *session, int64_t watermark)
{
    fail_at(w, session, watermark);
    committed(w);
}

/* ---- pace ---- */

static void test_one_at_a_time_and_the_rest_in_the_next(void **state)
{
    struct world *w = *state;
    start_many(w, 4);
    fail_now(w, "S2");
    expect_batch(w, 1); /* at once */
    fail_now(w, "S0");
    fail_now(w, "S3");
    advance(w, 5000);
    expect_batch(w, 1);
    expect_event(w, "S2", "session-failed");
    committed(w);
    assert_null(w->batch); /* its markers are being written */
    advance(w, 4);
    assert_null(w->batch);
    advance(w, 1);
    expect_batch(w, 2);
    expect_event(w, "S0", "session-failed");
    expect_event(w, "S3", "session-failed");
}

static void test_begins_are_twenty_ms_apart(void **state)
{
    struct world *w = *state;
    start_many(w, 3);
    fail_now(w, "S0");
    uint64_t begun = w->batch_ns;
    advance(w, 2);
    committed(w);
    fail_now(w, "S1");
    advance(w, 17);
    assert_null(w->batch);
    advance(w, 1);
    expect_batch(w, 1);
    assert_int_equal(w->batch_ns - begun, 20 * NS_PER_MS);
    committed(w);
    advance(w, 1000);
    fail_now(w, "S2");
    expect_batch(w, 1); /* long after the last one: at once */
}

static void test_a_refused_batch_is_tried_again(void **state)
{
    struct world *w = *state;
    start_many(w, 3);
    fail_now(w, "S1");
    fail_now(w, "S0");
    refused(w); /* S1's */
    fail_now(w, "S2");
    advance(w, 99);
    assert_null(w->batch);
    assert_int_equal(view_of(w, 0).watermark, 0);
    advance(w, 1);
    expect_batch(w, 3);
    assert_string_equal(w->batch->messages[0].key, "S1"); /* in the order in which they ended */
    assert_string_equal(w->batch->messages[1].key, "S0");
    assert_string_equal(w->batch->messages[2].key, "S2");
    expect_offset(w, 0, 3);
    refused(w);
    expect_batch(w, 3);
    assert_string_equal(w->batch->messages[0].key, "S1");
    assert_string_equal(w->batch->messages[2].key, "S2");
    assert_int_equal(metric_value(M_BATCHES, MB_REFUSED), 2);
    committed(w);
    assert_int_equal(view_of(w, 0).watermark, 3);
    expect_quiet(w);
}

static void test_an_outcome_of_another_batch_is_none(void **state)
{
    struct world *w = *state;
    start_many(w, 1);
    fail_now(w, "S0");
    struct batch other = {.id = w->batch->id + 1};
    const struct batch *batch = w->batch;
    w->batch = &other;
    refused(w);
    assert_int_equal(view_of(w, 0).watermark, 0);
    assert_true(status_of(w).committing);
    w->batch = batch;
    committed(w);
    assert_int_equal(view_of(w, 0).watermark, 1);
    assert_false(status_of(w).committing);
}

static void test_a_batch_has_a_size(void **state)
{
    struct world *w = *state;
    char key[16];
    w->config.jobs.max_in_flight = 5000;
    for (int i = 0; i < 2101; i++) {
        snprintf(key, sizeof key, "K%d", i);
        record_at(w, 0, i, key, "{}");
    }
    expect_batch(w, 2); /* the first one went at once: a dead letter and an event */
    committed(w);
    expect_batch(w, 4000);
    expect_offset(w, 0, 2001);
    committed(w);
    expect_batch(w, 200);
    expect_offset(w, 0, 2101);
}

/* ---- offsets ---- */

static void test_the_watermark_never_jumps_a_hole(void **state)
{
    struct world *w = *state;
    start_many(w, 4);
    fail_now(w, "S1");
    expect_offset(w, 0, 0);
    committed(w);
    assert_int_equal(view_of(w, 0).watermark, 0);
    assert_int_equal(view_of(w, 0).finished_above, 1);
    assert_int_equal(view_of(w, 0).taken, 3);
    fail_committed_at(w, "S3", 0);
    fail_committed_at(w, "S0", 2);
    fail_committed_at(w, "S2", 4);
    assert_int_equal(view_of(w, 0).finished_above, 0);
}

/* What one owner committed, the next one reads: finished jobs are skipped, unfinished ones run. */
static void test_metadata_goes_round(void **state)
{
    struct world *w = *state;
    start_many(w, 5);
    fail_now(w, "S1");
    committed(w);
    fail_now(w, "S3");
    expect_batch(w, 1);
    char *metadata = strdup(batch_metadata(w, 0));
    committed(w);

    world_restart(w);
    assign(w, 0, 0, metadata);
    free(metadata);
    assert_int_equal(view_of(w, 0).finished_above, 2);
    start_many(w, 6);
    expect_calls(w, 4);
    expect_call(w, "find fleet.S0"); /* its create had been sent */
    expect_call(w, "find fleet.S2");
    expect_call(w, "find fleet.S4");
    expect_call(w, "create fleet.S5");
    assert_int_equal(metric_value(M_JOBS_SKIPPED, 0), 2);
}

static void test_damaged_metadata_runs_again_what_it_hid(void **state)
{
    struct world *w = *state;
    assign(w, 0, 7, "something that another tool has written");
    assert_int_equal(metric_value(M_OFFSETS_REPLAYED, 0), 1);
    start(w, "S1", "");
    fail_now(w, "S1");
    expect_offset(w, 0, 8);
}

static void test_gaps_are_no_holes(void **state)
{
    struct world *w = *state;
    job_at(w, 0, 5, "start", "S5", "");
    job_at(w, 0, 9, "start", "S9", "");
    fail_now(w, "S9");
    expect_offset(w, 0, 5);
    job_at(w, 0, 20, "start", "S20", ""); /* while the batch is under way */
    committed(w);
    fail_committed_at(w, "S5", 20);
    fail_at(w, "S20", 21);
}

static void test_a_wide_gap_at_the_watermark(void **state)
{
    struct world *w = *state;
    job_at(w, 0, INT64_C(1000000000), "start", "S1", "");
    fail_now(w, "S1");
    expect_offset(w, 0, 1000000001);
}

/* A job at 0 is slow, and behind the record at 1 retention has left a hole of any width. */
static void beyond(struct world *w)
{
    job_at(w, 0, 0, "start", "S0", "");
    job_at(w, 0, 1, "start", "S1", "");
    job_at(w, 0, 90000, "start", "S2", "");
    assert_false(w->open[0]);
    fail_now(w, "S2"); /* it runs, but its offset cannot be said yet */
    advance(w, 1000);
    assert_null(w->batch);
    fail_at(w, "S1", 0);
}

static void test_what_is_beyond_the_window_waits(void **state)
{
    struct world *w = *state;
    beyond(w);
    committed(w);
    assert_false(w->open[0]);
    fail_committed_at(w, "S0", 24000);
    assert_true(w->open[0]);
    assert_int_equal(view_of(w, 0).watermark, 90000);
    expect_batch(w, 1);
    expect_event(w, "S2", "session-failed");
    expect_offset(w, 0, 90001);
    committed(w);
    expect_quiet(w);
}

static void test_a_refusal_beyond_the_window(void **state)
{
    struct world *w = *state;
    job_at(w, 0, 0, "start", "S0", "");
    record_at(w, 0, 30000, "K", "{}");
    assert_null(w->batch);
    fail_committed(w, "S0");
    expect_batch(w, 2);
    expect_offset(w, 0, 30001);
}

static void test_beyond_the_window_and_revoked(void **state)
{
    struct world *w = *state;
    beyond(w);
    revoke(w, 0);
    assert_int_equal(w->releases, 0);
    committed(w);
    assert_int_equal(w->n_released, 1); /* the one beyond runs again at the next owner */
    expect_calls(w, 0);
}

static void test_the_window_closes_and_opens(void **state)
{
    struct world *w = *state;
    w->config.jobs.max_in_flight = 100000;
    job_at(w, 0, 0, "start", "S0", "");
    for (int64_t i = 1; i < OFFSETS_WINDOW; i++) {
        assert_true(w->open[0]);
        record_at(w, 0, i, NULL, "no job");
        if (i % 1000 == 0)
            advance(w, 20);
        if (w->batch)
            committed(w);
    }
    assert_false(w->open[0]);
    while (status_of(w).unpublished) {
        advance(w, 20);
        committed(w);
    }
    assert_false(w->open[0]);
    assert_int_equal(view_of(w, 0).finished_above, OFFSETS_WINDOW - 1);
    fail_committed_at(w, "S0", OFFSETS_WINDOW);
    assert_true(w->open[0]);
}

static void test_metadata_fits_whatever_is_done(void **state)
{
    struct world *w = *state;
    struct rng r;
    char session[16], text[32];
    rng_init(&r, 3);
    w->config.jobs.max_in_flight = 4000;
    w->config.providers[0].creates_per_minute = 1000000;
    world_restart(w);
    assign(w, 0, 0, NULL);
    int64_t offset = 0;
    for (int i = 0; i < 3000 && w->open[0]; i++) { /* the fixture checks every batch's metadata */
        snprintf(session, sizeof session, "S%lld", (long long)offset);
        job_at(w, 0, offset, "start", session, "");
        snprintf(text, sizeof text, "create fleet.%s", session);
        if (offset && rng_below(&r, 2)) {
            expect_call(w, text);
            refuse(w, ERR_SESSION_EXISTS);
        }
        offset += 1 + (int64_t)rng_below(&r, 15);
        if (w->batch && w->batch->n_messages)
            committed(w);
        advance(w, 20);
    }
    assert_true(offset > 15000);
}

/* ---- the hint ---- */

static void test_highest_started_is_told_alone(void **state)
{
    struct world *w = *state;
    w->hold_hints = true;
    start_many(w, 3);
    advance(w, 999);
    assert_null(w->batch);
    advance(w, 1);
    expect_batch(w, 0);
    expect_offset(w, 0, 0);
    static struct offsets o;
    assert_true(offsets_decode(&o, 0, batch_metadata(w, 0)));
    assert_int_equal(o.highest_started, 2);
    committed(w);
    advance(w, 60000);
    assert_null(w->batch); /* it has not moved */
    start(w, "S9", "");
    advance(w, 1000);
    expect_batch(w, 0);
    refused(w);
    advance(w, 999);
    assert_null(w->batch);
    advance(w, 1);
    expect_batch(w, 0); /* it has not been told yet */
}

static void test_highest_started_goes_along(void **state)
{
    struct world *w = *state;
    w->hold_hints = true;
    start_many(w, 3);
    fail_now(w, "S1");
    static struct offsets o;
    assert_true(offsets_decode(&o, 0, batch_metadata(w, 0)));
    assert_int_equal(o.highest_started, 2);
    committed(w);
    advance(w, 5000);
    assert_null(w->batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_one_at_a_time_and_the_rest_in_the_next),
        WORLD_TEST(test_begins_are_twenty_ms_apart),
        WORLD_TEST(test_a_refused_batch_is_tried_again),
        WORLD_TEST(test_an_outcome_of_another_batch_is_none),
        WORLD_TEST(test_a_batch_has_a_size),
        WORLD_TEST(test_the_watermark_never_jumps_a_hole),
        WORLD_TEST(test_metadata_goes_round),
        WORLD_TEST(test_damaged_metadata_runs_again_what_it_hid),
        WORLD_TEST(test_gaps_are_no_holes),
        WORLD_TEST(test_a_wide_gap_at_the_watermark),
        WORLD_TEST(test_what_is_beyond_the_window_waits),
        WORLD_TEST(test_a_refusal_beyond_the_window),
        WORLD_TEST(test_beyond_the_window_and_revoked),
        WORLD_TEST(test_the_window_closes_and_opens),
        WORLD_TEST(test_metadata_fits_whatever_is_done),
        WORLD_TEST(test_highest_started_is_told_alone),
        WORLD_TEST(test_highest_started_goes_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
