/* offsets: the watermark, what is done above it, and the text that travels with the commit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/secret.h"
#include "worker/core/backoff.h"
#include "worker/core/offsets.h"

static struct offsets a, b;

/* Encodes o and reads it back into b; the text's length. */
static size_t round_trip(const struct offsets *o)
{
    struct buf text;
    buf_init(&text, 10 * OFFSETS_TEXT_MAX);
    offsets_encode(o, &text);
    size_t len = text.len;
    assert_true(len <= OFFSETS_TEXT_MAX);
    for (size_t i = 0; i < len; i++)
        assert_true(buf_text(&text)[i] > ' ' && buf_text(&text)[i] <= '~');
    assert_true(offsets_decode(&b, o->watermark, buf_text(&text)));
    buf_done(&text);
    return len;
}

static void assert_same(const struct offsets *x, const struct offsets *y)
{
    assert_int_equal(x->watermark, y->watermark);
    assert_int_equal(x->high, y->high);
    assert_int_equal(x->highest_started, y->highest_started);
    assert_int_equal(x->suspect, y->suspect);
    assert_int_equal(x->limit, y->limit);
    assert_int_equal(x->strikes, y->strikes);
    assert_memory_equal(x->ring, y->ring, sizeof x->ring);
}

static void test_watermark_advances_over_what_is_contiguous(void **state)
{
    (void)state;
    offsets_init(&a, 10);
    offsets_done(&a, 12);
    offsets_done(&a, 11);
    assert_int_equal(a.watermark, 10);
    assert_int_equal(offsets_done_above(&a), 2);
    assert_true(offsets_is_done(&a, 9) && offsets_is_done(&a, 11) && offsets_is_done(&a, 12));
    assert_false(offsets_is_done(&a, 10) || offsets_is_done(&a, 13));
    offsets_done(&a, 10);
    assert_int_equal(a.watermark, 13);
    assert_int_equal(offsets_done_above(&a), 0);
}

static void test_done_twice_or_long_ago_changes_nothing(void **state)
{
    (void)state;
    offsets_init(&a, 10);
    offsets_done(&a, 3);
    assert_int_equal(offsets_done_above(&a), 0);
    offsets_done(&a, 12);
    b = a;
    offsets_done(&a, 12);
    assert_same(&a, &b);
    assert_int_equal(offsets_done_above(&a), 1);
}

static void test_each_hint_alone_is_worth_a_text(void **state)
{
    (void)state;
    int64_t *const hints[] = {&a.highest_started, &a.suspect, &a.limit};
    for (size_t i = 0; i < ARRAY_LEN(hints); i++) {
        offsets_init(&a, 10);
        *hints[i] = 0;
        assert_true(round_trip(&a) > 0);
        assert_same(&a, &b);
    }
    offsets_init(&a, 10);
    a.strikes = 1;
    assert_true(round_trip(&a) > 0);
    assert_same(&a, &b);
}

/* No more than a header's beginning, or all of it but a byte. */
static void test_a_text_that_is_too_short(void **state)
{
    (void)state;
    static const uint8_t head[32] = {0xd5, 1};
    for (size_t len = 1; len <= sizeof head; len++) {
        struct buf text;
        buf_init(&text, 100);
        base64_encode(head, len, &text);
        assert_false(offsets_decode(&a, 10, buf_text(&text)));
        buf_done(&text);
    }
}

static void test_a_hole_stays_a_hole(void **state)
{
    (void)state;
    offsets_init(&a, 0);
    for (int64_t i = 1; i < OFFSETS_WINDOW; i++)
        offsets_done(&a, i);
    assert_int_equal(a.watermark, 0);
    assert_int_equal(offsets_done_above(&a), OFFSETS_WINDOW - 1);
    assert_false(offsets_has_room(&a, OFFSETS_WINDOW));
    offsets_done(&a, 0);
    assert_int_equal(a.watermark, OFFSETS_WINDOW);
    assert_true(offsets_has_room(&a, OFFSETS_WINDOW));
}

/* Many times round the ring: bits of long ago do not shine through. */
static void test_the_ring_is_clean_when_it_comes_round(void **state)
{
    (void)state;
    offsets_init(&a, 7);
    for (int64_t i = 7; i < 3 * OFFSETS_RING; i += 2) {
        offsets_done(&a, i + 1);
        assert_false(offsets_is_done(&a, i));
        assert_int_equal(a.watermark, i);
        offsets_done(&a, i);
        assert_int_equal(a.watermark, i + 2);
    }
    assert_int_equal(offsets_done_above(&a), 0);
}

static void test_gaps_are_done(void **state)
{
    (void)state;
    offsets_init(&a, 10);
    offsets_done(&a, 12);
    assert_int_equal(offsets_gap(&a, 13, 20), 20);
    assert_int_equal(a.watermark, 10);
    assert_true(offsets_is_done(&a, 19));
    assert_int_equal(offsets_gap(&a, 10, 12), 12);
    assert_int_equal(a.watermark, 20);
    assert_int_equal(offsets_gap(&a, 5, 15), 15);
    assert_int_equal(a.watermark, 20);
}

static void test_a_gap_with_nothing_open_below_may_be_of_any_width(void **state)
{
    (void)state;
    offsets_init(&a, 10);
    offsets_done(&a, 12);
    assert_int_equal(offsets_gap(&a, 10, INT64_C(5000000000)), INT64_C(5000000000));
    assert_int_equal(a.watermark, INT64_C(5000000000));
    assert_int_equal(offsets_done_above(&a), 0);
}

/* Above something open it goes as far as the window does, and says how far. */
static void test_a_gap_ends_with_the_window(void **state)
{
    (void)state;
    offsets_init(&a, 0);
    assert_int_equal(offsets_gap(&a, 1, 100000), OFFSETS_WINDOW);
    assert_int_equal(a.high, OFFSETS_WINDOW);
    offsets_done(&a, 0);
    assert_int_equal(a.watermark, OFFSETS_WINDOW);
    assert_int_equal(offsets_gap(&a, OFFSETS_WINDOW, 100000), 100000);
    assert_int_equal(a.watermark, 100000);
}

static void test_nothing_to_say_is_no_text(void **state)
{
    (void)state;
    offsets_init(&a, 123);
    assert_int_equal(round_trip(&a), 0);
    assert_same(&a, &b);
    assert_true(offsets_decode(&b, 123, NULL));
    assert_same(&a, &b);
}

static void test_text_keeps_everything(void **state)
{
    (void)state;
    offsets_init(&a, INT64_C(9000000000000));
    a.highest_started = a.watermark + 77;
    a.suspect = a.watermark + 3;
    a.limit = a.watermark + 64;
    a.strikes = 2;
    round_trip(&a);
    assert_same(&a, &b);
    offsets_done(&a, a.watermark + 1);
    offsets_done(&a, a.watermark + 23999);
    assert_true(round_trip(&a) < 70); /* two runs of each kind */
    assert_same(&a, &b);
}

static void test_text_always_fits(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    for (unsigned one_in = 1; one_in <= 24; one_in++) {
        offsets_init(&a, (int64_t)rng_below(&r, 1000000));
        a.highest_started = INT64_MAX;
        a.suspect = a.limit = a.watermark;
        a.strikes = 255;
        for (int64_t i = 1; i < OFFSETS_WINDOW; i++)
            if (rng_below(&r, one_in) == 0)
                offsets_done(&a, a.watermark + i);
        round_trip(&a);
        assert_same(&a, &b);
    }
}

/* Every second, every third …: what run lengths are worst at. */
static void test_the_worst_patterns_fit(void **state)
{
    (void)state;
    for (int64_t step = 2; step < 40; step++) {
        offsets_init(&a, step * 1000);
        a.highest_started = a.suspect = a.limit = INT64_MAX;
        for (int64_t i = 1; i < OFFSETS_WINDOW; i += step)
            offsets_done(&a, a.watermark + i);
        offsets_done(&a, a.watermark + OFFSETS_WINDOW - 1);
        round_trip(&a);
        assert_same(&a, &b);
    }
}

/* Fixed, so that what this version commits can be read by the next. */
static void test_the_form_is_stable(void **state)
{
    (void)state;
    struct buf text;
    offsets_init(&a, 5);
    a.highest_started = 9;
    offsets_done(&a, 7);
    buf_init(&text, OFFSETS_TEXT_MAX);
    offsets_encode(&a, &text);
    assert_string_equal(buf_text(&text), "1QEAAAAJAAAAAAAAAP/////////////////////jmNbRBA==");
    buf_done(&text);
}

static void assert_refused(int64_t watermark, const char *text)
{
    assert_false(offsets_decode(&b, watermark, text));
    assert_int_equal(b.watermark, watermark);
    assert_int_equal(b.high, watermark);
    assert_int_equal(b.highest_started, -1);
    assert_int_equal(offsets_done_above(&b), 0);
}

static void test_damage_is_noticed(void **state)
{
    (void)state;
    struct buf text;
    offsets_init(&a, 500);
    for (int64_t i = 0; i < 300; i += 3)
        offsets_done(&a, 501 + i);
    buf_init(&text, OFFSETS_TEXT_MAX);
    offsets_encode(&a, &text);
    char *copy = buf_steal(&text);
    assert_true(offsets_decode(&b, 500, copy));
    assert_refused(501, copy); /* moved to another offset */
    for (size_t i = 0; copy[i]; i++) {
        char was = copy[i];
        copy[i] = was == 'B' ? 'C' : 'B';
        assert_refused(500, copy);
        copy[i] = was;
    }
    copy[strlen(copy) - 4] = '\0';
    assert_refused(500, copy);
    free(copy);
}

static void test_foreign_metadata_is_refused(void **state)
{
    (void)state;
    static char longer[OFFSETS_TEXT_MAX + 100];
    memset(longer, 'A', sizeof longer - 1);
    assert_refused(3, "NO_METADATA");
    assert_refused(3, "not base64!");
    assert_refused(3, "AAAA");
    assert_refused(3, longer);
}

#define HEADER 33

/* Read into b: a text of this header and body, with the right checksum, for watermark 0. */
static bool is_read(uint8_t *raw, size_t n)
{
    static uint8_t seen[8192]; /* by the checksum: watermark 0, header without itself, body */
    struct buf text;
    memset(seen, 0, 8);
    memcpy(seen + 8, raw, HEADER - 4);
    memcpy(seen + 8 + HEADER - 4, raw + HEADER, n - HEADER);
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < 4 + n; i++) {
        crc ^= seen[i];
        for (int k = 0; k < 8; k++)
            crc = crc & 1 ? crc >> 1 ^ UINT32_C(0xedb88320) : crc >> 1;
    }
    for (unsigned i = 0; i < 4; i++)
        raw[HEADER - 4 + i] = (uint8_t)(~crc >> (8 * i));
    buf_init(&text, 2 * sizeof seen);
    base64_encode(raw, n, &text);
    bool ok = offsets_decode(&b, 0, buf_text(&text));
    buf_done(&text);
    return ok;
}

static uint8_t *header(unsigned version, unsigned encoding, unsigned skipped)
{
    static uint8_t raw[8192];
    memset(raw, 0, sizeof raw);
    raw[0] = 0xd5;
    raw[1] = (uint8_t)version;
    raw[2] = (uint8_t)encoding;
    raw[4] = (uint8_t)skipped;
    memset(raw + 5, 0xff, 24);
    return raw;
}

static bool body_is_read(unsigned encoding, const uint8_t *body, size_t n)
{
    uint8_t *raw = header(1, encoding, 0);
    memcpy(raw + HEADER, body, n);
    return is_read(raw, HEADER + n);
}

static void test_bodies_that_lie_are_refused(void **state)
{
    (void)state;
    static const uint8_t zeros[3001];
    static const uint8_t endless[] = {0x80}, wide[] = {0x80, 0x80, 0x80, 0x01};
    static const uint8_t full[] = {0xc0, 0xbb, 0x01}, beyond[] = {0xc1, 0xbb, 0x01}; /* 24001 */
    assert_true(body_is_read(0, zeros, sizeof zeros - 1));
    assert_true(body_is_read(1, full, sizeof full));
    assert_false(body_is_read(0, zeros, sizeof zeros));
    assert_false(body_is_read(1, endless, sizeof endless));
    assert_false(body_is_read(1, wide, sizeof wide));
    assert_false(body_is_read(1, beyond, sizeof beyond));
    assert_false(body_is_read(2, zeros, 1));
}

/* While a group is upgraded. */
static void test_what_a_later_version_adds_is_skipped(void **state)
{
    (void)state;
    uint8_t *raw = header(1, 0, 3);
    memcpy(raw + HEADER, "new\x06", 4);
    assert_true(is_read(raw, HEADER + 4));
    assert_int_equal(offsets_done_above(&b), 2);
    assert_true(offsets_is_done(&b, 1) && offsets_is_done(&b, 2));
    assert_true(is_read(raw, HEADER + 3)); /* and nothing behind it */
    assert_int_equal(offsets_done_above(&b), 0);
    assert_false(is_read(raw, HEADER + 2)); /* not all of it */
}

static void test_another_version_is_refused(void **state)
{
    (void)state;
    assert_true(is_read(header(1, 0, 0), HEADER));
    assert_false(is_read(header(0, 0, 0), HEADER));
    assert_false(is_read(header(2, 0, 0), HEADER));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watermark_advances_over_what_is_contiguous),
        cmocka_unit_test(test_done_twice_or_long_ago_changes_nothing),
        cmocka_unit_test(test_each_hint_alone_is_worth_a_text),
        cmocka_unit_test(test_a_text_that_is_too_short),
        cmocka_unit_test(test_a_hole_stays_a_hole),
        cmocka_unit_test(test_the_ring_is_clean_when_it_comes_round),
        cmocka_unit_test(test_gaps_are_done),
        cmocka_unit_test(test_a_gap_with_nothing_open_below_may_be_of_any_width),
        cmocka_unit_test(test_a_gap_ends_with_the_window),
        cmocka_unit_test(test_nothing_to_say_is_no_text),
        cmocka_unit_test(test_text_keeps_everything),
        cmocka_unit_test(test_text_always_fits),
        cmocka_unit_test(test_the_worst_patterns_fit),
        cmocka_unit_test(test_the_form_is_stable),
        cmocka_unit_test(test_damage_is_noticed),
        cmocka_unit_test(test_foreign_metadata_is_refused),
        cmocka_unit_test(test_bodies_that_lie_are_refused),
        cmocka_unit_test(test_what_a_later_version_adds_is_skipped),
        cmocka_unit_test(test_another_version_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
