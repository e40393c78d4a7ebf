/* The loop: timers that never fire early, descriptors, wake-ups, signals, hooks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "worker/io/loop.h"

static struct loop *loop;
static char trace[256]; /* what happened, one letter each */

static void note(char c)
{
    size_t n = strlen(trace);
    assert_true(n + 1 < sizeof trace);
    trace[n] = c;
}

static int setup(void **state)
{
    (void)state;
    memset(trace, 0, sizeof trace);
    loop = loop_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

static void stop(void *arg)
{
    (void)arg;
    loop_stop(loop);
}

/* ---- timers ---- */

struct alarm {
    struct timer *timer;
    char letter;
    uint64_t due, fired;
};

static void on_alarm(void *arg)
{
    struct alarm *a = arg;
    a->fired = loop_now_ns();
    note(a->letter);
}

static void test_timers_fire_in_order_and_never_early(void **state)
{
    (void)state;
    struct alarm alarms[] = {{.letter = 'c'}, {.letter = 'a'}, {.letter = 'b'}};
    static const uint64_t after_us[] = {6100, 1, 3333};
    uint64_t now = loop_now_ns();
    for (size_t i = 0; i < ARRAY_LEN(alarms); i++) {
        alarms[i].due = now + after_us[i] * 1000 + 1;
        alarms[i].timer = timer_new(loop, on_alarm, &alarms[i]);
        timer_arm(alarms[i].timer, alarms[i].due);
    }
    struct timer *end = timer_new(loop, stop, NULL);
    timer_arm(end, now + 10 * NS_PER_MS);
    loop_run(loop);
    assert_string_equal(trace, "abc");
    for (size_t i = 0; i < ARRAY_LEN(alarms); i++) {
        assert_true(alarms[i].fired >= alarms[i].due);
        timer_free(alarms[i].timer);
    }
    timer_free(end);
}

static struct alarm late;

static void on_late(void *arg)
{
    on_alarm(arg);
    loop_stop(loop);
}

static void work_then_arm(void *arg)
{
    (void)arg;
    uint64_t start = loop_now_ns();
    while (loop_now_ns() < start + 5 * NS_PER_MS)
        ;
    late.due = loop_now_ns() + 8 * NS_PER_MS;
    timer_arm(late.timer, late.due);
}

/* A loop that remembers the time of its last wake-up would fire this one 5 ms early. */
static void test_timer_armed_after_long_work_is_not_early(void **state)
{
    (void)state;
    late = (struct alarm){.letter = 'x'};
    late.timer = timer_new(loop, on_late, &late);
    struct timer *work = timer_new(loop, work_then_arm, NULL);
    timer_arm(work, 0);
    loop_run(loop);
    assert_string_equal(trace, "x");
    assert_true(late.fired >= late.due);
    timer_free(late.timer);
    timer_free(work);
}

static void test_arming_again_moves_and_never_disarms(void **state)
{
    (void)state;
    struct alarm moved = {.letter = 'm'}, off = {.letter = 'o'}, first = {.letter = 'f'};
    moved.timer = timer_new(loop, on_alarm, &moved);
    off.timer = timer_new(loop, on_alarm, &off);
    first.timer = timer_new(loop, on_alarm, &first);
    struct timer *end = timer_new(loop, stop, NULL);
    uint64_t now = loop_now_ns();
    timer_arm(moved.timer, now + NS_PER_MS);
    timer_arm(moved.timer, now + 4 * NS_PER_MS);
    timer_arm(first.timer, now + 2 * NS_PER_MS);
    timer_arm(off.timer, now + NS_PER_MS);
    timer_arm(off.timer, NEVER);
    timer_arm(end, now + 8 * NS_PER_MS);
    loop_run(loop);
    assert_string_equal(trace, "fm");
    timer_free(moved.timer);
    timer_free(off.timer);
    timer_free(first.timer);
    timer_free(end);
}

static struct timer *suicidal;

static void free_itself(void *arg)
{
    (void)arg;
    timer_free(suicidal);
    note('s');
    loop_stop(loop);
}

static void test_timer_frees_itself(void **state)
{
    (void)state;
    suicidal = timer_new(loop, free_itself, NULL);
    timer_arm(suicidal, 0);
    loop_run(loop);
    assert_string_equal(trace, "s");
    timer_free(NULL);
}

/* ---- descriptors ---- */

struct pipe_end {
    struct watch *watch;
    int fds[2];
    char letter;
};

static void on_pipe(void *arg, bool readable, bool writable)
{
    struct pipe_end *p = arg;
    char byte;
    assert_true(readable);
    assert_false(writable);
    assert_int_equal(read(p->fds[0], &byte, 1), 1);
    note(p->letter);
    loop_stop(loop);
}

static void open_pipe(struct pipe_end *p)
{
    assert_int_equal(pipe2(p->fds, O_CLOEXEC), 0);
    p->watch = watch_new(loop, p->fds[0], on_pipe, p);
    watch_set(p->watch, true, false);
}

static void close_pipe(struct pipe_end *p)
{
    watch_free(p->watch);
    close(p->fds[0]);
    close(p->fds[1]);
}

static void test_watch_reports_reading(void **state)
{
    (void)state;
    struct pipe_end p = {.letter = 'r'};
    open_pipe(&p);
    assert_int_equal(write(p.fds[1], "12", 2), 2);
    loop_run(loop);
    loop_run(loop);
    assert_string_equal(trace, "rr");
    close_pipe(&p);
}

static void test_watch_without_interest_is_silent(void **state)
{
    (void)state;
    struct pipe_end p = {.letter = 'r'};
    open_pipe(&p);
    watch_set(p.watch, false, false);
    assert_int_equal(write(p.fds[1], "1", 1), 1);
    struct timer *end = timer_new(loop, stop, NULL);
    timer_arm(end, loop_now_ns() + 2 * NS_PER_MS);
    loop_run(loop);
    assert_string_equal(trace, "");
    watch_set(p.watch, true, false);
    loop_run(loop);
    assert_string_equal(trace, "r");
    close_pipe(&p);
    timer_free(end);
}

static struct pipe_end reborn;

static void close_and_open_again(void *arg)
{
    (void)arg;
    int before = reborn.fds[0];
    close_pipe(&reborn);
    reborn.letter = 'n';
    open_pipe(&reborn);
    assert_int_equal(reborn.fds[0], before); /* or the test shows nothing */
    assert_int_equal(write(reborn.fds[1], "1", 1), 1);
}

static void test_same_number_in_one_turn_is_a_new_descriptor(void **state)
{
    (void)state;
    reborn = (struct pipe_end){.letter = 'o'};
    open_pipe(&reborn);
    struct timer *t = timer_new(loop, close_and_open_again, NULL);
    struct timer *end = timer_new(loop, stop, NULL);
    timer_arm(t, loop_now_ns() + NS_PER_MS); /* the old one has been with the kernel by then */
    timer_arm(end, loop_now_ns() + NS_PER_S);
    loop_run(loop);
    assert_string_equal(trace, "n");
    close_pipe(&reborn);
    timer_free(t);
    timer_free(end);
}

/* ---- wake-ups, signals, hooks ---- */

static void on_wake(void *arg)
{
    (void)arg;
    note('w');
    loop_stop(loop);
}

static void *send_twice(void *arg)
{
    wake_send(arg);
    wake_send(arg);
    return NULL;
}

static void test_wake_from_another_thread(void **state)
{
    (void)state;
    struct wake *w = wake_new(loop, on_wake, NULL);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_twice, w), 0);
    pthread_join(thread, NULL);
    loop_run(loop);
    assert_string_equal(trace, "w"); /* two sends, one call: drained before fn */
    assert_int_equal(write(wake_fd(w), &(uint64_t){1}, 8), 8);
    loop_run(loop);
    assert_string_equal(trace, "ww");
    wake_free(w);
}

static void on_signal(void *arg, int signo)
{
    note(*(char *)arg);
    assert_int_equal(signo, SIGUSR1);
    loop_stop(loop);
}

static void test_signal(void **state)
{
    (void)state;
    loop_signal(loop, SIGUSR1, on_signal, (char[]){"u"});
    raise(SIGUSR1);
    loop_run(loop);
    assert_string_equal(trace, "u");
}

static void on_turn(void *arg)
{
    note(*(char *)arg);
}

static void test_hooks_run_after_the_callbacks_of_a_turn(void **state)
{
    (void)state;
    struct alarm a = {.letter = 'a'}, b = {.letter = 'b'};
    a.timer = timer_new(loop, on_alarm, &a);
    b.timer = timer_new(loop, on_alarm, &b);
    struct timer *end = timer_new(loop, stop, NULL);
    char one = '1', two = '2';
    loop_each_turn(loop, on_turn, &one);
    loop_each_turn(loop, on_turn, &two);
    timer_arm(a.timer, 0);
    timer_arm(b.timer, 1);
    timer_arm(end, 2);
    loop_run(loop);
    assert_string_equal(trace, "ab12");
    loop_no_more_turns(loop, on_turn, &one);
    timer_arm(a.timer, 0);
    timer_arm(end, 1);
    loop_run(loop);
    assert_string_equal(trace, "ab12a2");
    timer_free(a.timer);
    timer_free(b.timer);
    timer_free(end);
}

static void test_stop_before_run(void **state)
{
    (void)state;
    loop_stop(loop);
    loop_run(loop); /* returns at once */
    assert_string_equal(trace, "");
}

int main(void)
{
    alarm(30);
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_timers_fire_in_order_and_never_early),
        T(test_timer_armed_after_long_work_is_not_early),
        T(test_arming_again_moves_and_never_disarms),
        T(test_timer_frees_itself),
        T(test_watch_reports_reading),
        T(test_watch_without_interest_is_silent),
        T(test_same_number_in_one_turn_is_a_new_descriptor),
        T(test_wake_from_another_thread),
        T(test_signal),
        T(test_hooks_run_after_the_callbacks_of_a_turn),
        T(test_stop_before_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
