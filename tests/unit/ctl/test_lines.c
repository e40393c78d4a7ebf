/* lines: whole lines, however they come, and time for others while none does. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/ctl/lines.h"

static struct lines lines;
static struct buf line;
static int ends[2];
static unsigned idles;

static int setup(void **state)
{
    (void)state;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    lines = (struct lines){.fd = ends[0]};
    buf_init(&line, 200000);
    idles = 0;
    return 0;
}

static void end_input(void)
{
    close(ends[1]);
    ends[1] = -1;
}

static int teardown(void **state)
{
    (void)state;
    buf_done(&line);
    close(ends[0]);
    if (ends[1] >= 0)
        end_input();
    return 0;
}

static void put(const char *text)
{
    assert_int_equal(write(ends[1], text, strlen(text)), strlen(text));
}

static void expect(const char *text)
{
    assert_true(lines_next(&lines, &line));
    assert_string_equal(buf_text(&line), text);
}

static void expect_end(int error)
{
    assert_false(lines_next(&lines, &line));
    assert_int_equal(lines.error, error);
}

static void lines_and_a_last_one_without_its_end(void **state)
{
    (void)state;
    put("one\n\ntwo\r\nthr");
    put("ee");
    end_input();
    expect("one");
    expect("");
    expect("two\r");
    expect("three");
    expect_end(0);
}

static void nothing_at_all(void **state)
{
    (void)state;
    end_input();
    expect_end(0);
}

/* The second time a line's rest comes, the fifth time the end. */
static void come_at_last(void *arg)
{
    assert_ptr_equal(arg, &lines);
    idles++;
    if (idles == 2)
        put("rest\nlast\n");
    if (idles == 5)
        end_input();
}

/* Lines that were read with others are there without asking the pipe, which may be silent. */
static void others_have_their_turn_while_it_is_silent(void **state)
{
    (void)state;
    lines.idle = come_at_last;
    lines.arg = &lines;
    put("one\ntwo\nthe ");
    expect("one");
    expect("two");
    assert_int_equal(idles, 0);
    expect("the rest");
    assert_int_equal(idles, 2);
    expect("last");
    assert_int_equal(idles, 2);
    expect_end(0);
    assert_int_equal(idles, 5);
}

static void a_pipe_that_does_not_block(void **state)
{
    (void)state;
    assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    lines.idle = come_at_last;
    lines.arg = &lines;
    expect("rest");
    expect("last");
    expect_end(0);
}

static void a_line_longer_than_a_block(void **state)
{
    (void)state;
    FILE *f = tmpfile();
    assert_non_null(f);
    for (int i = 0; i < 70000; i++)
        fputc('x', f);
    fputs("\nshort\n", f);
    rewind(f); /* and flushes */
    lines.fd = fileno(f);
    assert_true(lines_next(&lines, &line));
    assert_int_equal(strspn(buf_text(&line), "x"), 70000);
    assert_int_equal(line.len, 70000);
    expect("short");
    expect_end(0);
    fclose(f);
}

static void what_cannot_be_read(void **state)
{
    (void)state;
    lines.fd = open("/", O_RDONLY | O_CLOEXEC);
    expect_end(EISDIR);
    close(lines.fd);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lines_and_a_last_one_without_its_end),
        TEST(nothing_at_all),
        TEST(others_have_their_turn_while_it_is_silent),
        TEST(a_pipe_that_does_not_block),
        TEST(a_line_longer_than_a_block),
        TEST(what_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
