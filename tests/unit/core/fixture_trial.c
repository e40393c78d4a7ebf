/* fixture_trial: see the header. */
#include "tests/unit/core/fixture_trial.h"

int trial_setup(void **world)
{
    struct world *w = world_new();
    w->hold_hints = true;
    *world = w;
    return 0;
}

struct offsets state;

void assign_state(struct world *w, int32_t partition)
{
    struct buf text;
    buf_init(&text, OFFSETS_TEXT_MAX);
    offsets_encode(&state, &text);
    assign_only(w, partition, state.watermark, buf_text(&text));
    buf_done(&text);
}

void assign_as(struct world *w, int32_t partition, int64_t offset, uint8_t strikes, int64_t suspect)
{
    offsets_init(&state, offset);
    state.strikes = strikes;
    state.suspect = suspect;
    assign_state(w, partition);
}

void take_over(struct world *w, int32_t partition, int64_t offset, uint8_t strikes)
{
    assign_as(w, partition, offset, strikes, NOBODY);
    told(w, partition, strikes + 1u, NOBODY);
}

void take_first(struct world *w, int32_t partition, int64_t offset)
{
    assign_only(w, partition, offset, NULL);
    told(w, partition, 1, NOBODY);
}

void told_trial(struct world *w, int32_t partition, unsigned strikes, int64_t suspect)
{
    told(w, partition, strikes, NOBODY);
    told(w, partition, strikes, suspect);
}

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

void expect_word(struct world *w, int32_t partition, unsigned strikes, int64_t suspect)
{
    const struct offsets *o = in_batch(w, partition);
    assert_int_equal(o->strikes, strikes);
    assert_int_equal(o->suspect, suspect);
}

void expect_limit(struct world *w, int32_t partition, int64_t limit)
{
    assert_int_equal(in_batch(w, partition)->limit, limit);
}

void told(struct world *w, int32_t partition, unsigned strikes, int64_t suspect)
{
    for (int ms = 0; ms < 200 && !w->batch; ms++)
        advance(w, 1);
    expect_batch(w, 0);
    expect_word(w, partition, strikes, suspect);
    committed(w);
}

void told_nothing(struct world *w)
{
    advance(w, 300);
    assert_null(w->batch);
}

void told_limit(struct world *w, int64_t limit)
{
    for (int ms = 0; ms < 200 && !w->batch; ms++)
        advance(w, 1);
    expect_batch(w, 0);
    expect_limit(w, 0, limit);
    committed(w);
}
