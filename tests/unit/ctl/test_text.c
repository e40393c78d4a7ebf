/* text, table, place, advice: what is shown cannot steer a terminal, and stands in columns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire.h"
#include "common/xalloc.h"
#include "worker/ctl/advice.h"
#include "worker/ctl/place.h"
#include "worker/ctl/screen.h"
#include "worker/ctl/table.h"
#include "worker/ctl/text.h"

static struct buf out;

static int setup(void **state)
{
    (void)state;
    buf_init(&out, 100000);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_done(&out);
    return 0;
}

static void expect(const char *text)
{
    assert_string_equal(buf_text(&out), text);
    buf_clear(&out);
}

/* ---- text ---- */

static void nothing_that_steers_gets_through(void **state)
{
    (void)state;
    static const char text[] = "a\x1b[2J\r\n\t\x7f\xc2\x9b\xff \xe2\x80\xae\xe2\x80\x8b\xc2\xad"
                               "\xf3\xa0\x81\x81 \xc3\xa9\xf0\x9f\x98\x80";
    add_safe(&out, text, strlen(text));
    expect("a\\x1b[2J\\x0d\\x0a\\x09\\x7f\\x9b\\xff \\u{202e}\\u{200b}\\u{00ad}\\u{e0041} "
           "\xc3\xa9\xf0\x9f\x98\x80");
    add_json_line(&out, text, strlen(text));
    expect("a\\u001b[2J   \\u007f\\u009b\\ufffd \\u202e\\u200b\\u00ad\\udb40\\udc41 "
           "\xc3\xa9\xf0\x9f\x98\x80");
}

static void how_long_ago(void **state)
{
    (void)state;
    static const struct {
        uint64_t ms;
        const char *text;
    } cases[] = {{0, "0s"},          {1999, "1s"},      {119999, "119s"},
                 {120000, "2m"},     {7199999, "119m"}, {7200000, "2h"},
                 {172799999, "47h"}, {172800000, "2d"}, {8640000000, "100d"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        add_age(&out, cases[i].ms);
        expect(cases[i].text);
    }
    add_seconds(&out, 940);
    expect("0.9 s");
    add_seconds(&out, 312400);
    expect("312 s");
}

static void bars_in_proportion(void **state)
{
    (void)state;
    add_bar(&out, 50, 100, 10);
    expect("#####");
    add_bar(&out, 100, 100, 10);
    expect("##########");
    add_bar(&out, 1, 1000, 10);
    expect("#");
    add_bar(&out, 0, 1000, 10);
    expect("");
    add_bar(&out, 5, 0, 10);
    expect("#");
}

static void a_dump_of_text_and_of_bytes(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":1}\r\nb\te\n", bytes[] = "abcdefgh\0\x1b[2Jxyz\xff";
    add_dump(&out, "  ", text, strlen(text), 1000);
    expect("  {\"a\":1}\n  b\\x09e\n");
    add_dump(&out, " ", bytes, sizeof bytes - 1, 1000);
    expect(" 000000  61 62 63 64 65 66 67 68  00 1b 5b 32 4a 78 79 7a  |abcdefgh..[2Jxyz|\n"
           " 000010  ff                                                |.|\n");
    add_dump(&out, "", "abcdef", 6, 4);
    expect("abcd\n... 2 more bytes\n");
    add_dump(&out, "", "abc\xc3\xa9", 5, 4);
    expect("abc\n... 2 more bytes\n");
    add_dump(&out, "", "", 0, 4);
    expect("");
}

static void since_when(void **state)
{
    (void)state;
    uint64_t ms = 7;
    assert_true(parse_since("90s", 100000, &ms));
    assert_int_equal(ms, 10000);
    assert_true(parse_since("2m", 500000, &ms));
    assert_int_equal(ms, 380000);
    assert_true(parse_since("3d", 500000, &ms));
    assert_int_equal(ms, 0);
    assert_true(parse_since("1970-01-01T00:00:01Z", 500000, &ms));
    assert_int_equal(ms, 1000);
    static const char *const wrong[] = {"", "s", "10", "-1m", "1.5h", "10m ", "yesterday", "5w"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_false(parse_since(wrong[i], 500000, &ms));
}

/* ---- table ---- */

static void columns_are_as_wide_as_they_need(void **state)
{
    (void)state;
    static const char *const heads[] = {"NAME", ">AGE", "WHY"};
    struct table t;
    table_init(&t, heads, 3);
    table_text(&t, "S1");
    table_age(&t, 5000);
    table_text(&t, "");
    table_text(&t, "\xc3\xa9t\xc3\xa9-1\x1b");
    table_age(&t, 7200000);
    table_text(&t, "because");
    table_print(&t, false, 0, &out);
    expect("NAME       AGE  WHY\n"
           "S1          5s  -\n"
           "\xc3\xa9t\xc3\xa9-1\\x1b   2h  because\n");
    table_print(&t, false, 1, &out);
    expect("NAME       AGE  WHY\nS1          5s  -\n");
    table_done(&t);
}

static void colours_take_no_room(void **state)
{
    (void)state;
    static const char *const heads[] = {"A", "B"};
    struct table t;
    table_init(&t, heads, 2);
    table_text(&t, "red");
    table_paint(&t, RED);
    table_text(&t, "x");
    table_print(&t, true, 0, &out);
    expect("\033[2mA\033[0m    \033[2mB\033[0m\n\033[31mred\033[0m  x\n");
    table_done(&t);
}

/* One row must not push the columns of all others off the screen. */
static void a_huge_cell_is_cut(void **state)
{
    (void)state;
    static const char *const heads[] = {"A", "B"};
    char huge[5000];
    struct table t;
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    table_init(&t, heads, 2);
    table_text(&t, huge);
    table_text(&t, huge);
    table_print(&t, false, 0, &out);
    const char *line = strchr(buf_text(&out), '\n') + 1;
    assert_int_equal(strspn(line, "x"), 100);
    assert_int_equal(strlen(line), 100 + 3 + 2 + 500 + 3 + 1);
    table_done(&t);
}

#define ROWS 70u
#define LAST 1000000u

static struct {
    size_t pieces, lines, bytes, shortest;
    bool whole; /* every piece ends with a line */
} printed;

static void count(void *arg, const struct buf *piece)
{
    assert_null(arg);
    const char *text = buf_text(piece);
    assert_int_equal(strlen(text), piece->len);
    printed.whole &= text[piece->len - 1] == '\n';
    printed.pieces++;
    printed.bytes += piece->len;
    for (size_t n; *text; text += n + 1) {
        n = strcspn(text, "\n");
        if (printed.lines++ > 0) /* the head is one of its own */
            printed.shortest = MIN(printed.shortest, n);
    }
}

/* 70 MB of it: no row is lost, and nothing of its cells. */
static void a_table_has_all_its_rows(void **state)
{
    (void)state;
    static const char *const heads[] = {"A", "B"};
    char *last = xmalloc(LAST + 1);
    struct table t;
    memset(last, 'y', LAST);
    last[LAST] = '\0';
    table_init(&t, heads, 2);
    for (size_t i = 0; i < ROWS; i++) {
        table_text(&t, "x");
        table_add(&t, "%s", last);
    }
    printed.whole = true;
    printed.shortest = SIZE_MAX;
    table_each(&t, false, count, NULL);
    assert_true(printed.whole);
    assert_true(printed.pieces > 10);
    assert_int_equal(printed.lines, ROWS + 1);
    assert_int_equal(printed.shortest, 1 + 2 + LAST);
    table_done(&t);
    free(last);
}

static void a_table_without_rows_is_its_head(void **state)
{
    (void)state;
    static const char *const heads[] = {"A", "B"};
    struct table t;
    table_init(&t, heads, 2);
    memset(&printed, 0, sizeof printed);
    table_each(&t, false, count, NULL);
    assert_int_equal(printed.pieces, 1);
    assert_int_equal(printed.bytes, strlen("A  B\n"));
    table_done(&t);
}

/* ---- screen ---- */

static void a_line_is_cut_to_the_screen(void **state)
{
    (void)state;
    static const char line[] = "\033[31mr\xc3\xa9"
                               "d\033[0m and more";
    add_cut(&out, line, strlen(line), 5);
    expect("\033[31mr\xc3\xa9"
           "d\033[0m a");
    add_cut(&out, line, strlen(line), 0);
    expect("\033[31m\033[0m");
    add_cut(&out, "abc", 3, 80);
    expect("abc");
}

/* ---- place ---- */

static void where_a_record_stands(void **state)
{
    (void)state;
    struct place p, q;
    assert_true(place_read("jobs/3/41", &p));
    assert_true(place_is_in(&p, "jobs"));
    assert_false(place_is_in(&p, "job"));
    assert_int_equal(p.partition, 3);
    assert_int_equal(p.offset, 41);
    assert_true(place_read("jobs/3/42/1700000000000", &q));
    assert_int_equal(q.offset, 42);
    assert_true(place_is_beside(&p, &q));
    assert_true(place_read("jobs/4/42", &q));
    assert_false(place_is_beside(&p, &q));
    static const char *const wrong[] = {NULL,       "",        "jobs",     "jobs/3",
                                        "jobs/x/1", "jobs/1/", "jobs/-1/2"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_false(place_read(wrong[i], &p));
}

static void expect_job(const char *ce_id, const char *job)
{
    char *found = place_of_job(ce_id);
    assert_string_equal(found, job);
    free(found);
}

static void the_job_of_an_event(void **state)
{
    (void)state;
    expect_job("jobs/3/41", "jobs/3/41");
    expect_job("jobs/3/42/1700000000000", "jobs/3/42");
    expect_job("of somebody else", "of somebody else");
    assert_null(place_of_job(NULL));
}

static void places_in_short(void **state)
{
    (void)state;
    int32_t partition = 7;
    int64_t offset = 7;
    assert_true(place_read_short("0/41", &partition, &offset));
    assert_int_equal(partition, 0);
    assert_int_equal(offset, 41);
    assert_true(place_read_short("12", &partition, &offset));
    assert_int_equal(partition, 12);
    assert_int_equal(offset, -1);
    static const char *const wrong[] = {"",      "/", "1/",  "/1",         "-1",
                                        "1/2/3", "a", "1/x", "99999999999"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_false(place_read_short(wrong[i], &partition, &offset));
}

/* ---- advice ---- */

static void every_code_has_its_advice(void **state)
{
    (void)state;
    for (unsigned i = ERR_NONE + 1; i < N_ERRORS; i++) {
        const char *advice = advice_for(error_name((enum error_code)i));
        if (!advice || strlen(advice) < 20)
            fail_msg("%s has no advice", error_name((enum error_code)i));
        for (unsigned k = ERR_NONE + 1; k < i; k++)
            assert_string_not_equal(advice, advice_for(error_name((enum error_code)k)));
    }
    assert_null(advice_for("else"));
    assert_null(advice_for(NULL));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_that_steers_gets_through),
        TEST(how_long_ago),
        TEST(bars_in_proportion),
        TEST(a_dump_of_text_and_of_bytes),
        TEST(since_when),
        TEST(columns_are_as_wide_as_they_need),
        TEST(colours_take_no_room),
        TEST(a_huge_cell_is_cut),
        TEST(a_table_has_all_its_rows),
        TEST(a_table_without_rows_is_its_head),
        TEST(a_line_is_cut_to_the_screen),
        TEST(where_a_record_stands),
        TEST(the_job_of_an_event),
        TEST(places_in_short),
        TEST(every_code_has_its_advice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
