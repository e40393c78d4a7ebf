/* base, buf and xalloc: numbers and times from text, UTF-8, bounded buffers. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/xalloc.h"

static void test_parse_i64(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        int64_t value;
    } cases[] = {
        {"0", true, 0},
        {"-7", true, -7},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"99999999999999999999999", false, 0},
        {"", false, 0},
        {"-", false, 0},
        {"+1", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"1x", false, 0},
        {"0x10", false, 0},
        {"1.0", false, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t value = 4711;
        bool ok = parse_i64(cases[i].text, strlen(cases[i].text), INT64_MIN, INT64_MAX, &value);
        assert_int_equal(ok, cases[i].ok);
        assert_true(value == (ok ? cases[i].value : 4711));
    }
}

static void test_parse_i64_limits(void **state)
{
    (void)state;
    int64_t value = 1;
    assert_true(parse_i64("10", 2, 10, 12, &value));
    assert_true(value == 10);
    assert_true(parse_i64("12", 2, 10, 12, &value));
    assert_true(value == 12);
    assert_false(parse_i64("9", 1, 10, 12, &value));
    assert_false(parse_i64("13", 2, 10, 12, &value));
    assert_true(parse_i64("119", 2, 10, 12, &value)); /* of the first two characters */
    assert_true(value == 11);
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len, n;
    } cases[] = {
        {"a", 1, 1},
        {"\0", 1, 1},
        {"\xc3\xa4", 2, 2},
        {"\xe2\x82\xac", 3, 3},
        {"\xe0\xa0\x80", 3, 3},
        {"\xed\x9f\xbf", 3, 3},
        {"\xf0\x90\x80\x80", 4, 4},
        {"\xf0\x9f\x98\x80", 4, 4},
        {"\xf4\x8f\xbf\xbf", 4, 4},
        {"", 0, 0},
        {"\x80", 1, 0},
        {"\xc3", 1, 0},             /* cut */
        {"\xc3(", 2, 0},            /* no continuation */
        {"\xc0\x80", 2, 0},         /* overlong */
        {"\xe0\x80\x80", 3, 0},     /* overlong */
        {"\xed\xa0\x80", 3, 0},     /* surrogate */
        {"\xf4\x90\x80\x80", 4, 0}, /* beyond U+10FFFF */
        {"\xf8\x88\x80\x80", 4, 0},
        {"\xe2\x82", 2, 0},
        {"\xe2\x82(", 3, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(utf8_char(cases[i].text, cases[i].len), cases[i].n);
}

static void test_make_harmless(void **state)
{
    (void)state;
    char text[] = "a\x1b[31m\a\nok\t\x7f \xc2\x9b\xc2\xa0\xff \xc3\xa4\xe2\x82\xac\xe2\x82";
    make_harmless(text, sizeof text - 1);
    assert_string_equal(text, "a?[31m??ok?? ??\xc2\xa0? \xc3\xa4\xe2\x82\xac??");
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
        const char *utc;
    } good[] = {
        {"1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00.000Z"},
        {"2026-11-24T08:10:38.123Z", UINT64_C(1795507838123), "2026-11-24T08:10:38.123Z"},
        {"2026-11-24T08:10:38.1239999Z", UINT64_C(1795507838123), "2026-11-24T08:10:38.123Z"},
        {"2026-11-24T09:10:38.5+01:00", UINT64_C(1795507838500), "2026-11-24T08:10:38.500Z"},
        {"2026-11-24t07:40:38-00:30", UINT64_C(1795507838000), "2026-11-24T08:10:38.000Z"},
        {"2024-02-29T23:59:59z", UINT64_C(1709251199000), "2024-02-29T23:59:59.000Z"},
        {"2016-12-31 23:59:60Z", UINT64_C(1483228800000), "2017-01-01T00:00:00.000Z"},
        {"2026-11-24T08:10:38+00:59", UINT64_C(1795504298000), "2026-11-24T07:11:38.000Z"},
        {"2000-03-01T00:00:00Z", UINT64_C(951868800000), "2000-03-01T00:00:00.000Z"},
        {"9999-12-31T23:59:59.999Z", UINT64_C(253402300799999), "9999-12-31T23:59:59.999Z"},
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint64_t ms = 1;
        char text[TIME_TEXT_SIZE];
        assert_true(parse_time_ms(good[i].text, &ms));
        assert_true(ms == good[i].ms);
        format_time_ms(ms, text);
        assert_string_equal(text, good[i].utc);
    }
    char last[TIME_TEXT_SIZE];
    format_time_ms(UINT64_MAX, last);
    assert_string_equal(last, "9999-12-31T23:59:59.999Z");
}

static void test_broken_times(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "2026-11-24",
        "2026-11-24T08:10:38",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-11-24T24:00:00Z",
        "2026-11-24T08:60:00Z",
        "2026-11-24T08:10:61Z",
        "2026-11-24T08:10:38.Z",
        "2026-11-24T08:10:38Zx",
        "2026-11-24T08:10:38+0100",
        "2026-11-24T08:10:38+24:00",
        "2026-11-24T08:10:38+01:60",
        "2026-11-24T08:10:38+01:6",
        "2026-11-24T08:10:38+1:00",
        "2026-11-24x08:10:38Z",
        "26-11-24T08:10:38Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+01:00",
        "1795507838",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint64_t ms = 4711;
        assert_false(parse_time_ms(bad[i], &ms));
        assert_true(ms == 4711);
    }
}

/* Every day of four centuries goes to text and back. */
static void test_times_round(void **state)
{
    (void)state;
    for (uint64_t day = 0; day < 146097; day++) {
        char text[TIME_TEXT_SIZE];
        uint64_t ms = day * 86400000 + day % 86400000, back;
        format_time_ms(ms, text);
        assert_true(parse_time_ms(text, &back));
        assert_true(back == ms);
    }
}

/* Runs fn in a child with stderr in a pipe: true when it aborted, and what it said. */
static bool aborts(void (*fn)(void), char *said, size_t size)
{
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        fn();
        _exit(0);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], said, size - 1);
    said[n > 0 ? n : 0] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void broken_promise(void)
{
    ASSERT(strlen("x") == 2);
}

static void kept_promise(void)
{
    ASSERT(strlen("x") == 1);
}

static void too_much(void)
{
    free(xrealloc(NULL, SIZE_MAX / 2, 4));
}

static void test_aborts(void **state)
{
    (void)state;
    char said[200];
    assert_true(aborts(broken_promise, said, sizeof said));
    assert_non_null(strstr(said, "test_base.c:"));
    assert_non_null(strstr(said, ": broken invariant: strlen(\"x\") == 2\n"));
    assert_false(aborts(kept_promise, said, sizeof said));
    assert_true(aborts(too_much, said, sizeof said));
    assert_string_equal(said, "out of memory\n");
}

static void test_buf(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    assert_string_equal(buf_text(&b), "");
    buf_adds(&b, "abc");
    buf_addc(&b, '-');
    buf_addf(&b, "%d", 42);
    assert_string_equal(buf_text(&b), "abc-42");
    assert_false(b.overflow);
    buf_adds(&b, "12345");
    assert_true(b.overflow);
    assert_int_equal(b.len, 10);
    assert_string_equal(buf_text(&b), "abc-421234");
    buf_addc(&b, 'x');
    assert_int_equal(b.len, 10);
    buf_clear(&b);
    assert_false(b.overflow);
    assert_string_equal(buf_text(&b), "");
    buf_add(&b, "a\0b", 3);
    assert_int_equal(b.len, 3);
    assert_memory_equal(buf_text(&b), "a\0b", 4);
    buf_done(&b);
    buf_done(&b);
}

static void test_buf_exactly_full(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 64);
    for (int i = 0; i < 64; i++)
        buf_addc(&b, 'x');
    assert_false(b.overflow);
    assert_int_equal(strlen(buf_text(&b)), 64);
    buf_add(&b, NULL, 0);
    assert_false(b.overflow);
    buf_addc(&b, 'x');
    assert_true(b.overflow);
    buf_done(&b);
}

static void test_buf_long_format(void **state)
{
    (void)state;
    struct buf b;
    char text[1000];
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    buf_init(&b, 5000);
    for (size_t n = 250; n < 260; n++) {
        buf_addf(&b, "%.*s", (int)n, text);
        assert_int_equal(b.len, n);
        assert_int_equal(strlen(buf_text(&b)), n);
        buf_clear(&b);
    }
    buf_addf(&b, "<%s>%d", text, 7);
    assert_int_equal(b.len, 2 + 999 + 1);
    assert_string_equal(buf_text(&b) + 1000, ">7");
    char *stolen = buf_steal(&b);
    assert_int_equal(strlen(stolen), 1002);
    assert_int_equal(b.len, 0);
    assert_int_equal(b.max, 5000);
    free(stolen);
    stolen = buf_steal(&b);
    assert_string_equal(stolen, "");
    free(stolen);
}

static void test_xalloc(void **state)
{
    (void)state;
    char *empty = xasprintf("%s", "");
    assert_string_equal(empty, "");
    free(empty);
    char *a = xmemdup0("ab\0c", 4);
    assert_memory_equal(a, "ab\0c", 5);
    char *b = xasprintf("%s-%d", "x", 3);
    assert_string_equal(b, "x-3");
    assert_null(xstrdup0(NULL));
    int *list = NULL;
    size_t cap = 0;
    for (size_t n = 0; n < 100; n++) {
        GROW(list, n, cap);
        list[n] = (int)n;
    }
    assert_int_equal(list[99], 99);
    assert_true(cap >= 100);
    char *z = xcalloc(3, 5);
    assert_memory_equal(z, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 15);
    free(z);
    free(list);
    free(a);
    free(b);
    free(xmalloc(0));
    free(xcalloc(0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_i64),
        cmocka_unit_test(test_parse_i64_limits),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_make_harmless),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_broken_times),
        cmocka_unit_test(test_times_round),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_buf_exactly_full),
        cmocka_unit_test(test_buf_long_format),
        cmocka_unit_test(test_xalloc),
        cmocka_unit_test(test_aborts),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
