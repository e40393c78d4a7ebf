/* Records that kill the process: strikes, one record at a time, and the verdict. */
#include "tests/unit/core/fixture.h"

#include <stdio.h>

#include "common/xalloc.h"
#include "worker/core/offsets.h"

#define NOBODY (-1)

/* ---- what is committed ---- */

static struct offsets state; /* what an owner left behind */

static void assign_state(struct world *w, int32_t partition)
{
    struct buf text;
    buf_init(&text, OFFSETS_TEXT_MAX);
    offsets_encode(&state, &text);
    assign_only(w, partition, state.watermark, buf_text(&text));
    buf_done(&text);
}

static void assign_as(struct world *w, int32_t partition, int64_t offset, uint8_t strikes,
                      int64_t suspect)
{
    offsets_init(&state, offset);
    state.strikes = strikes;
    state.suspect = suspect;
    assign_state(w, partition);
}

/* What the batch under way leaves behind of the partition. */
static const struct offsets *in_batch(const struct world *w, int32_t partition)
{
    static struct offsets o;
    assert_non_null(w->batch);
    for (size_t i = 0; i < w->batch->n_offsets; i++) {
        const struct batch_offset *b = &w->batch->offsets[i];
        if (b->partition != partition)
            continue;
        assert_true(offsets_decode(&o, b->watermark, b->metadata));
        return &o;
    }
    fail_msg("the batch says nothing of partition %d", partition);
    return NULL;
}

static void expect_word(struct world *w, int32_t partition, unsigned strikes, int64_t suspect)
{
    const struct offsets *o = in_batch(w, partition);
    assert_int_equal(o->strikes, strikes);
    assert_int_equal(o->suspect, suspect);
}

static void expect_limit(struct world *w, int32_t partition, int64_t limit)
{
    assert_int_equal(in_batch(w, partition)->limit, limit);
}

/* A batch without messages comes that says so, and goes through. */
static void told(struct world *w, int32_t partition, unsigned strikes, int64_t suspect)
{
    for (int ms = 0; ms < 200 && !w->batch; ms++)
        advance(w, 1);
    expect_batch(w, 0);
    expect_word(w, partition, strikes, suspect);
    committed(w);
}

static void told_nothing(struct world *w)
{
    advance(w, 300);
    assert_null(w->batch);
}

static int setup(void **world)
{
    struct world *w = world_new();
    w->hold_hints = true;
    *world = w;
    return 0;
}
#define TRIAL_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, world_teardown)

/* ---- strikes ---- */

static void test_the_strike_comes_first(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 0, NULL);
    assert_null(w->batch);
    advance(w, 1);
    expect_batch(w, 0);
    expect_offset(w, 0, 0);
    expect_word(w, 0, 1, NOBODY);
    assert_false(w->open[0]);
    committed(w);
    assert_true(w->open[0]);
    assert_int_equal(view_of(w, 0).strikes, 1);
    told_nothing(w);
}

static void test_what_is_assigned_together_is_told_together(void **world)
{
    struct world *w = *world;
    for (int32_t p = 0; p < PARTITIONS; p++)
        assign_as(w, p, 10 + p, (uint8_t)p, NOBODY);
    advance(w, 1);
    expect_batch(w, 0);
    for (int32_t p = 0; p < PARTITIONS; p++)
        expect_word(w, p, (unsigned)p + 1, NOBODY);
    committed(w);
    for (int32_t p = 0; p < 3; p++)
        assert_true(w->open[p]);
}

static void test_a_strike_that_is_refused_is_told_again(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 0, 1, NOBODY);
    advance(w, 1);
    for (int i = 0; i < 5; i++) {
        expect_word(w, 0, 2, NOBODY);
        refused(w);
        assert_false(w->open[0]);
        advance(w, 99);
        assert_null(w->batch);
        advance(w, 1);
    }
    told(w, 0, 2, NOBODY);
    assert_true(w->open[0]);
}

static void test_strikes_have_a_most(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 0, UINT8_MAX, NOBODY);
    told(w, 0, UINT8_MAX, NOBODY);
}

static void test_progress_begins_a_new_row(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 0, 2, NOBODY);
    told(w, 0, 3, NOBODY);
    advance(w, 25);
    start(w, "S1", "");
    start(w, "S2", "");
    fail_now(w, "S2");
    expect_batch(w, 1);
    expect_offset(w, 0, 0);
    expect_word(w, 0, 3, NOBODY); /* the first one holds the watermark up */
    committed(w);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_offset(w, 0, 2);
    expect_word(w, 0, 1, NOBODY);
    refused(w);
    assert_int_equal(view_of(w, 0).strikes, 3);
    expect_batch(w, 1);
    expect_word(w, 0, 1, NOBODY);
    committed(w);
    assert_int_equal(view_of(w, 0).strikes, 1);
    told_nothing(w);
}

/* A marker of a transaction lies between any two records: that the next one has a higher offset
 * moves the watermark, and proves nothing. */
static void test_a_gap_is_no_progress(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 1, NOBODY);
    told(w, 0, 2, NOBODY);
    job_at(w, 0, 7, "start", "S1", "");
    advance(w, 1000);
    expect_batch(w, 0); /* the hint that its CREATE was sent */
    expect_offset(w, 0, 7);
    expect_word(w, 0, 2, NOBODY);
    committed(w);
    job_at(w, 0, 9, "start", "S2", "");
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_offset(w, 0, 9);
    expect_word(w, 0, 1, NOBODY);
}

static void test_a_gap_after_progress_is_still_progress(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 1, NOBODY);
    told(w, 0, 2, NOBODY);
    advance(w, 25);
    job_at(w, 0, 5, "start", "S1", "");
    fail_now(w, "S1");
    committed(w);
    job_at(w, 0, 9, "start", "S2", "");
    advance(w, 1000);
    expect_batch(w, 0);
    expect_word(w, 0, 1, NOBODY);
}

/* What an earlier owner did above a gap is no progress of ours. */
static void test_a_gap_below_what_was_done_is_no_progress(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    offsets_done(&state, 6);
    state.strikes = 1;
    assign_state(w, 0);
    told(w, 0, 2, NOBODY);
    job_at(w, 0, 7, "start", "S1", "");
    advance(w, 1000);
    expect_batch(w, 0);
    expect_offset(w, 0, 7);
    expect_word(w, 0, 2, NOBODY);
}

/* ---- goodbye ---- */

static void test_a_goodbye_takes_the_strike_back(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    told(w, 0, 3, NOBODY);
    revoke(w, 0);
    assert_int_equal(w->releases, 0);
    expect_batch(w, 0);
    expect_word(w, 0, 2, NOBODY);
    committed(w);
    assert_int_equal(w->releases, 1);
}

static void test_a_goodbye_after_progress_leaves_none(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    told(w, 0, 3, NOBODY);
    advance(w, 25);
    job_at(w, 0, 5, "start", "S1", "");
    job_at(w, 0, 6, "start", "S2", "");
    fail_now(w, "S1");
    committed(w);
    fail_now(w, "S2");
    revoke(w, 0);
    expect_batch(w, 1); /* goes along with the last results */
    expect_word(w, 0, 0, NOBODY);
    committed(w);
    assert_int_equal(w->releases, 1);
}

static void test_a_goodbye_is_said_once(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 5, NULL);
    told(w, 0, 1, NOBODY);
    revoke(w, 0);
    expect_word(w, 0, 0, NOBODY);
    refused(w);
    assert_int_equal(w->releases, 1);
    told_nothing(w);
}

static void test_who_was_not_announced_says_no_goodbye(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    revoke(w, 0);
    assert_int_equal(w->releases, 1);
    told_nothing(w);
}

static void test_a_revoke_that_meets_the_announcement(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    advance(w, 1);
    revoke(w, 0);
    assert_int_equal(w->releases, 0);
    expect_word(w, 0, 3, NOBODY);
    committed(w);
    expect_word(w, 0, 2, NOBODY);
    committed(w);
    assert_int_equal(w->releases, 1);
}

static void test_lost_says_nothing(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 5, NULL);
    told(w, 0, 1, NOBODY);
    lose(w, 0);
    told_nothing(w);
}

static void test_a_drain_has_nothing_to_say(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 5, NULL);
    drain(w);
    assert_true(w->drained);
    assert_null(w->batch);
}

static void test_a_drain_says_goodbye(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 1, NOBODY);
    assign_only(w, 1, 0, NULL);
    told(w, 0, 2, NOBODY);
    job_at(w, 1, 0, "start", "S1", "");
    drain(w);
    advance(w, 24999);
    expect_word(w, 1, 1, NOBODY); /* the hint that its CREATE was sent */
    committed(w);
    advance(w, 1);
    expect_word(w, 0, 1, NOBODY);
    expect_word(w, 1, 0, NOBODY);
    assert_false(w->drained);
    committed(w);
    assert_true(w->drained);
    expect_quiet(w);
}

static void test_a_drain_says_goodbye_once(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 5, NULL);
    told(w, 0, 1, NOBODY);
    drain(w);
    expect_word(w, 0, 0, NOBODY);
    assert_int_equal(core_next(w->core), w->now_ns + NS_PER_S);
    refused(w);
    assert_true(w->drained);
}

static void test_a_drain_has_no_time_for_a_long_goodbye(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 5, NULL);
    told(w, 0, 1, NOBODY);
    drain(w);
    expect_batch(w, 0);
    advance(w, 999);
    assert_false(w->drained);
    advance(w, 1);
    assert_true(w->drained);
}

static void test_a_drain_after_the_goodbye(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 5, NULL);
    assign_only(w, 1, 0, NULL);
    told(w, 0, 1, NOBODY);
    revoke(w, 0);
    committed(w);
    drain(w);
    expect_batch(w, 0);
    assert_null(batch_metadata(w, 0));
    committed(w);
    assert_true(w->drained);
}

/* ---- nothing is there ---- */

static void test_an_open_partition_with_nothing_in_it_is_above_suspicion(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    told(w, 0, 3, NOBODY);
    advance(w, 4999);
    assert_null(w->batch);
    told(w, 0, 1, NOBODY);
    advance(w, 20000);
    assert_null(w->batch);
    assert_true(w->open[0]);
}

static void test_one_with_a_job_under_way_is_not(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    told(w, 0, 3, NOBODY);
    start(w, "S1", "");
    advance(w, 1000);
    expect_word(w, 0, 3, NOBODY); /* the hint that its CREATE was sent */
    committed(w);
    advance(w, 20000);
    assert_null(w->batch);
    assert_int_equal(view_of(w, 0).strikes, 3);
}

static void test_one_without_strikes_has_nothing_to_tell(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 5, NULL);
    told(w, 0, 1, NOBODY);
    advance(w, 20000);
    assert_null(w->batch);
}

/* ---- one by one ---- */

static void test_one_by_one(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 3, NOBODY);
    told(w, 0, 4, NOBODY);
    assert_false(w->open[0]);
    assert_true(view_of(w, 0).one_by_one);
    for (int64_t at = 5; at < 8; at++) {
        told(w, 0, 4, at);
        assert_true(w->open[0]);
        job_at(w, 0, at, "start", "S1", "");
        assert_false(w->open[0]);
        advance(w, 25);
        fail_now(w, "S1");
        expect_batch(w, 1);
        expect_offset(w, 0, at + 1);
        expect_word(w, 0, 4, NOBODY); /* progress, and no proof */
        assert_false(w->open[0]);
        committed(w);
        assert_false(w->open[0]);
    }
}

static void test_two_strikes_are_no_suspicion(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, 5);
    told(w, 0, 3, NOBODY);
    assert_true(w->open[0]);
    start(w, "S1", "");
    assert_true(w->parsed);
    assert_true(w->open[0]);
}

static void test_a_suspect_that_is_refused_is_told_again(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 3, NOBODY);
    told(w, 0, 4, NOBODY);
    advance(w, 25);
    expect_word(w, 0, 4, 5);
    refused(w);
    assert_false(w->open[0]);
    told(w, 0, 4, 5);
    assert_true(w->open[0]);
}

static void test_a_result_that_is_refused_keeps_the_suspect(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 3, NOBODY);
    told(w, 0, 4, NOBODY);
    told(w, 0, 4, 5);
    record_at(w, 0, 5, "S1", "no job"); /* a refusal is a result as well */
    expect_batch(w, 1 + 1);
    expect_word(w, 0, 4, NOBODY);
    refused(w);
    assert_false(w->open[0]);
    expect_batch(w, 2);
    committed(w);
    told(w, 0, 4, 6);
}

/* The offset that would be read next is skipped to, past what is done, and may itself be a hole:
 * then the record above it is the one. */
static void test_the_suspect_may_be_a_hole(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    offsets_done(&state, 6);
    offsets_done(&state, 7);
    state.strikes = 3;
    assign_state(w, 0);
    told(w, 0, 4, NOBODY);
    told(w, 0, 4, 5);
    job_at(w, 0, 5, "start", "S1", "");
    fail_now(w, "S1");
    expect_batch(w, 1);
    committed(w);
    told(w, 0, 4, 8);
    job_at(w, 0, 6, "start", "S2", ""); /* read again on the way */
    assert_false(w->parsed);
    assert_true(w->open[0]);
    job_at(w, 0, 10, "start", "S3", "");
    assert_false(w->open[0]);
    advance(w, 1000);
    expect_offset(w, 0, 10); /* the hint: 8 and 9 will never come */
    expect_word(w, 0, 4, 10);
    committed(w);
    fail_now(w, "S3");
    expect_batch(w, 1);
    expect_word(w, 0, 4, NOBODY);
    committed(w);
    told(w, 0, 4, 11);
}

static void test_one_suspect_at_a_time(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 0, NULL); /* has nothing to do with it */
    for (int32_t p = 1; p < 4; p++)
        assign_as(w, p, 10, 3, NOBODY);
    told(w, 1, 4, NOBODY);
    for (int32_t turn = 0; turn < 6; turn++) {
        int32_t p = 1 + turn % 3;
        int64_t at = 10 + turn / 3;
        told(w, p, 4, at);
        for (int32_t other = 1; other < 4; other++)
            assert_true(w->open[other] == (other == p));
        record_at(w, p, at, "S1", "no job");
        assert_false(w->open[p]);
        expect_batch(w, 2);
        assert_false(w->open[p]);
        committed(w);
        assert_true(w->open[0]);
    }
}

static void test_a_partition_that_goes_frees_its_turn(void **world)
{
    struct world *w = *world;
    assign_as(w, 1, 10, 3, NOBODY);
    assign_as(w, 2, 10, 4, NOBODY);
    told(w, 1, 4, NOBODY);
    told(w, 1, 4, 10);
    job_at(w, 1, 10, "start", "S1", "");
    advance(w, 25);
    revoke(w, 1);
    expect_word(w, 1, 3, NOBODY); /* we are alive, and so it was not that one */
    expect_word(w, 2, 5, 10);
    committed(w);
    assert_true(w->open[2]);
    lose(w, 2);
    assign_as(w, 3, 10, 3, NOBODY);
    told(w, 3, 4, NOBODY);
    told(w, 3, 4, 10);
}

/* ---- what the dead have read ---- */

static void told_limit(struct world *w, int64_t limit)
{
    for (int ms = 0; ms < 200 && !w->batch; ms++)
        advance(w, 1);
    expect_batch(w, 0);
    expect_limit(w, 0, limit);
    committed(w);
}

static void test_the_third_says_how_far_it_reads(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    told_limit(w, 5 + 64);
    for (int64_t at = 5; at < 5 + 32; at++)
        job_at(w, 0, at, "start", "S1", "");
    advance(w, 25);
    expect_word(w, 0, 3, NOBODY);
    expect_limit(w, 0, 5 + 32 + 64);
    for (int64_t at = 5 + 32; at < 5 + 64; at++) {
        assert_true(w->open[0]);
        job_at(w, 0, at, "start", "S1", "");
    }
    assert_false(w->open[0]);
    refused(w);
    assert_false(w->open[0]);
    told_limit(w, 5 + 64 + 64); /* as far as it has come meanwhile */
    assert_true(w->open[0]);
}

static void test_what_was_read_before_is_read_again_at_once(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    state.strikes = 2;
    state.highest_started = 200;
    assign_state(w, 0);
    told_limit(w, 200 + 1 + 64);
    state.highest_started = 3;
    offsets_done(&state, 100);
    assign_state(w, 0);
    told_limit(w, 100 + 1 + 64);
}

static void test_with_progress_nobody_asks_any_more(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    told_limit(w, 5 + 64);
    start(w, "S1", "");
    advance(w, 25);
    fail_now(w, "S1");
    expect_word(w, 0, 1, NOBODY);
    expect_limit(w, 0, -1);
    committed(w);
    for (int i = 0; i < 100; i++) {
        assert_true(w->open[0]);
        start(w, "S2", "");
    }
    told_nothing(w);
}

static void test_the_first_two_say_nothing_of_it(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 1, NOBODY);
    told_limit(w, -1);
    for (int i = 0; i < 100; i++)
        start(w, "S1", "");
    assert_true(w->open[0]);
}

static void test_it_ends_when_all_have_survived(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    offsets_done(&state, 7);
    state.strikes = 3;
    state.limit = 8;
    assign_state(w, 0);
    told_limit(w, 8);
    told(w, 0, 4, 5);
    record_at(w, 0, 5, "S1", "no job");
    expect_batch(w, 2);
    expect_limit(w, 0, 8);
    committed(w);
    assert_true(view_of(w, 0).one_by_one);
    told(w, 0, 4, 6);
    record_at(w, 0, 6, "S1", "no job");
    expect_batch(w, 2);
    expect_word(w, 0, 4, NOBODY);
    committed(w);
    assert_false(view_of(w, 0).one_by_one);
    assert_true(w->open[0]);
    job_at(w, 0, 8, "start", "S1", "");
    assert_true(w->open[0]);
    told_limit(w, -1);
    assert_int_equal(view_of(w, 0).strikes, 1);
}

static void test_there_may_be_nothing_to_try(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    state.strikes = 3;
    state.limit = 5;
    assign_state(w, 0);
    told_limit(w, 5);
    assert_true(w->open[0]);
    told(w, 0, 1, NOBODY);
}

static void test_without_a_limit_it_is_what_can_be_in_flight(void **world)
{
    struct world *w = *world;
    w->config.jobs.max_in_flight = 3;
    assign_as(w, 0, 5, 3, NOBODY);
    told_limit(w, 8);
}

static void test_a_goodbye_leaves_the_limit(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    state.strikes = 3;
    state.limit = 8;
    assign_state(w, 0);
    told_limit(w, 8);
    told(w, 0, 4, 5);
    revoke(w, 0);
    expect_word(w, 0, 3, NOBODY);
    expect_limit(w, 0, 8);
}

static void test_nothing_comes_and_the_next_has_its_turn(void **world)
{
    struct world *w = *world;
    assign_as(w, 1, 10, 3, NOBODY);
    assign_as(w, 2, 10, 3, NOBODY);
    told(w, 1, 4, NOBODY);
    told(w, 1, 4, 10);
    advance(w, 4999);
    assert_null(w->batch);
    assert_false(w->open[2]);
    advance(w, 1);
    expect_word(w, 1, 1, NOBODY);
    expect_word(w, 2, 4, 10);
    committed(w);
    assert_true(w->open[1]);
    assert_true(w->open[2]);
    job_at(w, 2, 10, "start", "S1", "");
    advance(w, 1000);
    expect_word(w, 2, 4, 10); /* the hint that its CREATE was sent */
    committed(w);
    advance(w, 20000); /* one that lasts is not "nothing comes" */
    assert_null(w->batch);
    assert_int_equal(view_of(w, 2).strikes, 4);
    assert_false(w->open[2]);
}

static void test_a_drain_in_the_middle_of_it(void **world)
{
    struct world *w = *world;
    assign_as(w, 1, 10, 3, NOBODY);
    told(w, 1, 4, NOBODY);
    told(w, 1, 4, 10);
    job_at(w, 1, 10, "start", "S1", "");
    advance(w, 25);
    drain(w);
    fail_now(w, "S1");
    expect_batch(w, 1);
    committed(w);
    assert_false(w->drained);
    expect_word(w, 1, 3, NOBODY);
    committed(w);
    assert_true(w->drained);
}

static void test_a_drain_tries_nobody(void **world)
{
    struct world *w = *world;
    assign_as(w, 1, 10, 3, NOBODY);
    assign_as(w, 2, 10, 3, NOBODY);
    told(w, 1, 4, NOBODY);
    told(w, 1, 4, 10);
    job_at(w, 1, 10, "start", "S1", "");
    advance(w, 25);
    drain(w);
    fail_now(w, "S1");
    committed(w);
    expect_word(w, 1, 3, NOBODY);
    expect_word(w, 2, 3, NOBODY);
}

/* ---- guilty ---- */

/* It looks for the session's sandbox, and there is none. */
static void expect_poison(struct world *w, const char *session)
{
    char *look = xasprintf("find fleet.%s", session);
    expect_call(w, look);
    free(look);
    missing(w);
    expect_batch(w, 2);
    assert_int_equal(w->batch->messages[0].to, TO_DEAD_LETTERS);
    expect_failed(w, session, "poison", "queue", NULL);
}

static void test_the_guilty_one_is_not_parsed(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 5);
    told(w, 0, 5, 5);
    assert_true(w->open[0]);
    record_at(w, 0, 5, "S1", "whatever it is");
    assert_false(w->parsed);
    assert_false(w->open[0]); /* before the verdict is committed nothing else is taken */
    expect_poison(w, "S1");
    const struct message *letter = &w->batch->messages[0];
    assert_string_equal(letter->value, "whatever it is");
    assert_string_equal(letter->key, "S1");
    expect_offset(w, 0, 6);
    expect_word(w, 0, 1, NOBODY);
    committed(w);
    assert_true(w->open[0]);
    start(w, "S2", "");
    assert_true(w->parsed);
    assert_true(w->open[0]);
    told_nothing(w);
}

static void test_a_caller_that_has_parsed_it_is_not_believed(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 5);
    told(w, 0, 5, 5);
    w->parse_all = true;
    job_at(w, 0, 5, "start", "S1", "");
    expect_calls(w, 1);
    expect_poison(w, "S1");
    expect_calls(w, 0);
}

static void test_without_a_session_there_is_a_dead_letter(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 5);
    told(w, 0, 5, 5);
    record_at(w, 0, 5, NULL, "{}");
    expect_calls(w, 0);
    expect_batch(w, 1);
    assert_int_equal(w->batch->messages[0].to, TO_DEAD_LETTERS);
    expect_word(w, 0, 1, NOBODY);
    assert_int_equal(metric_value(M_JOBS_COMPLETED, MO_REFUSED), 1);
    assert_int_equal(metric_value2(M_JOB_FAILURES, STEP_QUEUE, ERR_POISON), 1);
    committed(w);
    assign_as(w, 1, 5, 4, 5);
    told(w, 1, 5, 5);
    record_at(w, 1, 5, "no session id", "{}");
    expect_batch(w, 1);
    assert_int_equal(w->batch->messages[0].to, TO_DEAD_LETTERS);
}

static void poisoned(struct world *w)
{
    assign_as(w, 0, 5, 4, 5);
    told(w, 0, 5, 5);
    record_at(w, 0, 5, "S1", "{}");
    expect_call(w, "find fleet.S1");
}

/* A life before had done all but commit. */
static void test_a_sandbox_that_was_kept_is_named(void **world)
{
    struct world *w = *world;
    poisoned(w);
    found(w, "b1 mine ours kept runs");
    expect_batch(w, 2);
    expect_failed(w, "S1", "poison", "queue", "kept");
    expect_field(w, "sandbox.id", "b1");
    committed(w);
    expect_calls(w, 0);
}

static void test_one_that_was_not_is_destroyed(void **world)
{
    struct world *w = *world;
    poisoned(w);
    found(w, "b1 mine ours provisional runs");
    expect_batch(w, 2);
    expect_failed(w, "S1", "poison", "queue", "scheduled");
    expect_calls(w, 0);
    committed(w);
    expect_call(w, "find b1");
}

static void test_anothers_is_left_alone(void **world)
{
    struct world *w = *world;
    poisoned(w);
    found(w, "b1 ours provisional runs");
    expect_failed(w, "S1", "poison", "queue", "none");
    committed(w);
    expect_calls(w, 0);
}

static void test_the_look_has_its_end(void **world)
{
    struct world *w = *world;
    poisoned(w);
    advance(w, 60000);
    expect_failed(w, "S1", "poison", "queue", NULL);
    assert_int_equal(w->batch->n_messages, 2);
}

static void test_a_look_that_is_never_committed(void **world)
{
    struct world *w = *world;
    poisoned(w);
    lose(w, 0); /* the letter is freed with its session */
    assign_as(w, 0, 5, 5, 5);
    told(w, 0, 6, 5);
    record_at(w, 0, 5, "S1", "{}");
    expect_call(w, "find fleet.S1");
    drain(w);
    advance(w, 30000);
    expect_word(w, 0, 5, 5);
}

static void test_without_a_topic_no_dead_letter(void **world)
{
    struct world *w = *world;
    w->config.topics.dead_letters[0] = '\0';
    poisoned(w);
    missing(w);
    expect_batch(w, 1);
    expect_failed(w, "S1", "poison", "queue", NULL);
    committed(w);
    assign_as(w, 1, 5, 4, 5);
    told(w, 1, 5, 5);
    record_at(w, 1, 5, NULL, "{}");
    expect_batch(w, 0);
    expect_offset(w, 1, 6);
}

static void test_the_guilty_one_lies_above_a_hole(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 5);
    told(w, 0, 5, 5);
    record_at(w, 0, 8, "S1", "{}");
    assert_false(w->parsed);
    expect_poison(w, "S1");
    expect_offset(w, 0, 9);
    expect_word(w, 0, 1, NOBODY);
}

static void test_what_lies_below_the_guilty_one_is_innocent(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 7);
    told(w, 0, 5, 7);
    job_at(w, 0, 6, "start", "S1", "");
    assert_true(w->parsed);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_word(w, 0, 5, 7);
    committed(w);
    record_at(w, 0, 7, "S2", "{}");
    expect_poison(w, "S2");
}

static void test_a_suspect_that_was_finished_is_not_guilty(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    offsets_done(&state, 7);
    state.strikes = 4;
    state.suspect = 7;
    assign_state(w, 0);
    told(w, 0, 5, NOBODY);
    told(w, 0, 5, 5);
    job_at(w, 0, 5, "start", "S1", "");
    assert_true(w->parsed);
}

static void test_a_goodbye_leaves_the_verdict_to_the_next(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 5);
    told(w, 0, 5, 5);
    revoke(w, 0);
    expect_word(w, 0, 4, 5);
    committed(w);
    assert_int_equal(w->releases, 1);
}

static void test_a_verdict_that_is_refused_is_told_again(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 5);
    told(w, 0, 5, 5);
    advance(w, 25);
    record_at(w, 0, 5, "S1", "{}");
    expect_poison(w, "S1");
    refused(w);
    assert_false(w->open[0]);
    revoke(w, 0);
    expect_failed(w, "S1", "poison", "queue", NULL);
    expect_word(w, 0, 0, NOBODY);
    refused(w);
    assert_int_equal(w->releases, 1); /* the next owner finds what we found */
}

static void test_the_verdict_explains_the_strikes_of_the_others(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 5);
    assign_as(w, 1, 5, 4, NOBODY);
    assign_as(w, 2, 5, 2, NOBODY);
    assign_as(w, 3, 5, 4, 6);
    told(w, 1, 5, NOBODY);
    advance(w, 300); /* no trial while a verdict is due */
    assert_null(w->batch);
    assert_false(w->open[1]);
    record_at(w, 0, 5, "S1", "{}");
    expect_poison(w, "S1");
    committed(w);
    assert_true(w->open[1]);
    advance(w, 25);
    expect_word(w, 1, 1, NOBODY);
    expect_word(w, 2, 1, NOBODY);
    committed(w);
    assert_int_equal(view_of(w, 3).strikes, 5); /* has a verdict of its own */
    record_at(w, 3, 6, "S2", "{}");
    expect_poison(w, "S2");
}

static void test_the_verdict_frees_who_is_on_trial(void **world)
{
    struct world *w = *world;
    assign_as(w, 1, 5, 4, NOBODY);
    told(w, 1, 5, NOBODY);
    told(w, 1, 5, 5);
    job_at(w, 1, 5, "start", "S1", "");
    assign_as(w, 0, 5, 4, 5);
    told(w, 0, 5, 5);
    assert_false(w->open[1]);
    record_at(w, 0, 5, "S2", "{}");
    expect_poison(w, "S2");
    committed(w);
    assert_true(w->open[1]);
    told(w, 1, 1, NOBODY);
    advance(w, 25);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_word(w, 1, 1, NOBODY);
}

static void test_the_guilty_one_is_not_there_any_more(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 5);
    told(w, 0, 5, 5);
    advance(w, 59999);
    assert_null(w->batch);
    advance(w, 1);
    expect_word(w, 0, 1, NOBODY);
    committed(w);
    start(w, "S1", "");
    assert_true(w->parsed);
}

static void test_the_log_begins_again(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 5);
    told(w, 0, 5, 5);
    advance(w, 25);
    job_at(w, 0, 0, "start", "S1", "");
    assert_true(w->parsed);
    expect_call(w, "create fleet.S1");
    told(w, 0, 1, NOBODY);
    job_at(w, 0, 5, "start", "S2", "");
    assert_true(w->parsed);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_word(w, 0, 1, NOBODY);
}

static void test_what_is_done_is_not_parsed(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 5, NULL);
    told(w, 0, 1, NOBODY);
    start(w, "S1", "");
    assert_true(w->parsed);
    assert_false(core_may_parse(w->core, 0, 5)); /* taken */
    assert_true(core_may_parse(w->core, 0, 6));
    assert_false(core_may_parse(w->core, 1, 6)); /* not ours */
    revoke(w, 0);
    assert_false(core_may_parse(w->core, 0, 6)); /* not for long */
}

/* ---- the whole way ---- */

#define RECORDS 150

struct way { /* of a partition with a killer in it, through many lives */
    struct world *w;
    int64_t killer;
    bool in_the_parser; /* else when it has become a job */
    int64_t watermark;
    char *metadata;
    unsigned results[RECORDS], letters, deaths;
};

static void way_commits(struct way *y)
{
    const struct batch *b = y->w->batch;
    int of;
    for (size_t i = 0; i < b->n_messages; i++) {
        const struct message *m = &b->messages[i];
        y->letters += m->to == TO_DEAD_LETTERS;
        if (m->to == TO_RESULTS && sscanf(m->key, "S%d", &of) == 1)
            y->results[of]++;
    }
    y->watermark = b->offsets[0].watermark;
    free(y->metadata);
    y->metadata = xstrdup(b->offsets[0].metadata);
    committed(y->w);
}

/* False: the process dies of it. */
static bool way_reads(struct way *y, int64_t at)
{
    struct world *w = y->w;
    bool parsed = core_may_parse(w->core, 0, at);
    if (parsed && at == y->killer && y->in_the_parser)
        return false;
    char *session = xasprintf("S%d", (int)at);
    job_at(w, 0, at, "start", session, "");
    free(session);
    return !parsed || at != y->killer;
}

static void way_answers(struct way *y)
{
    struct world *w = y->w;
    w->current = w->calls[w->n_calls - 1];
    if (w->current.step == STEP_FIND)
        missing(w);
    else
        refuse(w, ERR_FORBIDDEN);
}

/* Records are read as long as the partition is open; then one of the sessions ends. */
static bool way_lives(struct way *y)
{
    struct world *w = y->w;
    assign_only(w, 0, y->watermark, y->metadata);
    int64_t at = y->watermark;
    for (int turn = 0; turn < 10 * RECORDS && y->watermark < RECORDS; turn++) {
        while (w->open[0] && at < RECORDS)
            if (!way_reads(y, at++))
                return false;
        if (w->n_calls)
            way_answers(y);
        advance(w, 30);
        if (w->batch)
            way_commits(y);
    }
    return true;
}

static void walk(int64_t killer, bool in_the_parser, int max_in_flight)
{
    struct way y = {.w = world_new(), .killer = killer, .in_the_parser = in_the_parser};
    y.w->hold_hints = true;
    y.w->config.jobs.max_in_flight = max_in_flight;
    y.w->config.providers[0].creates_per_minute = 1000000;
    world_restart(y.w);
    while (!way_lives(&y)) {
        assert_true(++y.deaths <= 4);
        world_restart(y.w);
    }
    assert_int_equal(y.deaths, 4);
    assert_int_equal(y.watermark, RECORDS);
    assert_int_equal(y.letters, 1);
    for (int i = 0; i < RECORDS; i++)
        assert_int_equal(y.results[i], 1);
    free(y.metadata);
    world_free(y.w);
}

static void test_four_deaths_and_no_more(void **world)
{
    static const int64_t killers[] = {0, 1, 31, 32, 63, 64, 65, 100, RECORDS - 1};
    static const int in_flight[] = {1, 2, 40, 1000};
    (void)world;
    for (size_t k = 0; k < ARRAY_LEN(killers); k++)
        for (size_t m = 0; m < ARRAY_LEN(in_flight); m++) {
            walk(killers[k], true, in_flight[m]);
            walk(killers[k], false, in_flight[m]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TRIAL_TEST(test_the_strike_comes_first),
        TRIAL_TEST(test_what_is_assigned_together_is_told_together),
        TRIAL_TEST(test_a_strike_that_is_refused_is_told_again),
        TRIAL_TEST(test_strikes_have_a_most),
        TRIAL_TEST(test_progress_begins_a_new_row),
        TRIAL_TEST(test_a_gap_is_no_progress),
        TRIAL_TEST(test_a_gap_after_progress_is_still_progress),
        TRIAL_TEST(test_a_gap_below_what_was_done_is_no_progress),
        TRIAL_TEST(test_a_goodbye_takes_the_strike_back),
        TRIAL_TEST(test_a_goodbye_after_progress_leaves_none),
        TRIAL_TEST(test_a_goodbye_is_said_once),
        TRIAL_TEST(test_who_was_not_announced_says_no_goodbye),
        TRIAL_TEST(test_a_revoke_that_meets_the_announcement),
        TRIAL_TEST(test_lost_says_nothing),
        TRIAL_TEST(test_a_drain_has_nothing_to_say),
        TRIAL_TEST(test_a_drain_says_goodbye),
        TRIAL_TEST(test_a_drain_says_goodbye_once),
        TRIAL_TEST(test_a_drain_has_no_time_for_a_long_goodbye),
        TRIAL_TEST(test_a_drain_after_the_goodbye),
        TRIAL_TEST(test_an_open_partition_with_nothing_in_it_is_above_suspicion),
        TRIAL_TEST(test_one_with_a_job_under_way_is_not),
        TRIAL_TEST(test_one_without_strikes_has_nothing_to_tell),
        TRIAL_TEST(test_one_by_one),
        TRIAL_TEST(test_two_strikes_are_no_suspicion),
        TRIAL_TEST(test_a_suspect_that_is_refused_is_told_again),
        TRIAL_TEST(test_a_result_that_is_refused_keeps_the_suspect),
        TRIAL_TEST(test_the_suspect_may_be_a_hole),
        TRIAL_TEST(test_one_suspect_at_a_time),
        TRIAL_TEST(test_a_partition_that_goes_frees_its_turn),
        TRIAL_TEST(test_the_third_says_how_far_it_reads),
        TRIAL_TEST(test_what_was_read_before_is_read_again_at_once),
        TRIAL_TEST(test_with_progress_nobody_asks_any_more),
        TRIAL_TEST(test_the_first_two_say_nothing_of_it),
        TRIAL_TEST(test_it_ends_when_all_have_survived),
        TRIAL_TEST(test_there_may_be_nothing_to_try),
        TRIAL_TEST(test_without_a_limit_it_is_what_can_be_in_flight),
        TRIAL_TEST(test_a_goodbye_leaves_the_limit),
        TRIAL_TEST(test_nothing_comes_and_the_next_has_its_turn),
        TRIAL_TEST(test_a_drain_in_the_middle_of_it),
        TRIAL_TEST(test_a_drain_tries_nobody),
        TRIAL_TEST(test_the_guilty_one_is_not_parsed),
        TRIAL_TEST(test_a_caller_that_has_parsed_it_is_not_believed),
        TRIAL_TEST(test_without_a_session_there_is_a_dead_letter),
        TRIAL_TEST(test_a_sandbox_that_was_kept_is_named),
        TRIAL_TEST(test_one_that_was_not_is_destroyed),
        TRIAL_TEST(test_anothers_is_left_alone),
        TRIAL_TEST(test_the_look_has_its_end),
        TRIAL_TEST(test_a_look_that_is_never_committed),
        TRIAL_TEST(test_without_a_topic_no_dead_letter),
        TRIAL_TEST(test_the_guilty_one_lies_above_a_hole),
        TRIAL_TEST(test_what_lies_below_the_guilty_one_is_innocent),
        TRIAL_TEST(test_a_suspect_that_was_finished_is_not_guilty),
        TRIAL_TEST(test_a_goodbye_leaves_the_verdict_to_the_next),
        TRIAL_TEST(test_a_verdict_that_is_refused_is_told_again),
        TRIAL_TEST(test_the_verdict_explains_the_strikes_of_the_others),
        TRIAL_TEST(test_the_verdict_frees_who_is_on_trial),
        TRIAL_TEST(test_the_guilty_one_is_not_there_any_more),
        TRIAL_TEST(test_the_log_begins_again),
        TRIAL_TEST(test_what_is_done_is_not_parsed),
        cmocka_unit_test(test_four_deaths_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
