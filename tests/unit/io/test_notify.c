/* What the service manager hears: a datagram socket of our own plays it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/io/notify.h"

static struct loop *loop;
static struct notify *notify;
static struct timer *end, *change;
static int manager;
static char address[64]; /* as NOTIFY_SOCKET has it */
static bool is_ready;
static const char *status;
static unsigned looks;

static bool look(void *arg, struct buf *out)
{
    assert_ptr_equal(arg, &is_ready);
    looks++;
    buf_adds(out, status);
    return is_ready;
}

static void stop(void *arg)
{
    (void)arg;
    loop_stop(loop);
}

static void run_for(unsigned ms)
{
    timer_arm(end, loop_now_ns() + ms * NS_PER_MS);
    loop_run(loop);
}

/* The datagrams that came, each followed by "|". */
static const char *heard(void)
{
    static char text[4096];
    size_t len = 0;
    for (;;) {
        ssize_t n = recv(manager, text + len, sizeof text - len - 2, MSG_DONTWAIT);
        if (n < 0)
            break;
        len += (size_t)n;
        text[len++] = '|';
    }
    text[len] = '\0';
    return text;
}

static unsigned count(const char *text, const char *word)
{
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, word)); p++)
        n++;
    return n;
}

static void silence(void *arg, const char *line, size_t len)
{
    (void)arg;
    (void)line;
    (void)len;
}

static int setup(void **state)
{
    (void)state;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    log_capture(silence, NULL);
    loop = loop_new();
    end = timer_new(loop, stop, NULL);
    int n = snprintf(address, sizeof address, "@session-worker-test-notify-%d", (int)getpid());
    memcpy(to.sun_path + 1, address + 1, (size_t)n - 1);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(manager, (struct sockaddr *)&to,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n)),
                     0);
    setenv("NOTIFY_SOCKET", address, 1);
    is_ready = false;
    status = "joining";
    looks = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    notify_free(notify);
    notify = NULL;
    timer_free(end);
    timer_free(change);
    change = NULL;
    loop_free(loop);
    close(manager);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return 0;
}

static void start(void)
{
    struct notify_source source = {.look = look, .arg = &is_ready};
    notify = notify_new(loop, &source);
}

static void become_ready(void *arg)
{
    (void)arg;
    is_ready = true;
    status = "ready";
}

static void test_ready_once_and_not_before(void **state)
{
    (void)state;
    start();
    assert_non_null(notify);
    assert_null(getenv("NOTIFY_SOCKET"));
    run_for(700);
    assert_string_equal(heard(), "STATUS=joining\n|");
    assert_in_range(looks, 2, 5);
    become_ready(NULL);
    run_for(500);
    assert_string_equal(heard(), "READY=1\nSTATUS=ready\n|");
    run_for(1500);
    assert_string_equal(heard(), "");
}

/* A status that changes all the time is told once a second. */
static void flicker(void *arg)
{
    (void)arg;
    status = strcmp(status, "a") == 0 ? "b" : "a";
    timer_arm(change, loop_now_ns() + 30 * NS_PER_MS);
}

static void test_status_is_told_once_a_second(void **state)
{
    (void)state;
    change = timer_new(loop, flicker, NULL);
    timer_arm(change, 0);
    start();
    run_for(2500);
    const char *said = heard();
    assert_in_range(count(said, "STATUS="), 2, 3);
    assert_int_equal(count(said, "READY=1"), 0);
}

static void test_stopping(void **state)
{
    (void)state;
    become_ready(NULL);
    start();
    run_for(50);
    assert_string_equal(heard(), "READY=1\nSTATUS=ready\n|");
    status = "draining";
    notify_stopping(notify);
    assert_string_equal(heard(), "STOPPING=1\nSTATUS=draining\n|");
}

static void test_never_ready_after_stopping(void **state)
{
    (void)state;
    start();
    run_for(50);
    notify_stopping(notify);
    become_ready(NULL);
    run_for(500);
    assert_int_equal(count(heard(), "READY=1"), 0);
}

static void test_watchdog(void **state)
{
    (void)state;
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("WATCHDOG_USEC", "400000", 1);
    setenv("WATCHDOG_PID", pid, 1);
    start();
    run_for(1050);
    assert_in_range(count(heard(), "WATCHDOG=1\n"), 3, 11);
}

static void test_another_is_watched(void **state)
{
    (void)state;
    setenv("WATCHDOG_USEC", "400000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    start();
    run_for(500);
    assert_int_equal(count(heard(), "WATCHDOG=1"), 0);
}

/* Until the manager's socket takes no more. */
static void fill(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int other = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memcpy(to.sun_path + 1, address + 1, strlen(address) - 1);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address));
    while (sendto(other, "x", 1, 0, (struct sockaddr *)&to, len) == 1)
        ;
    close(other);
}

/* A full socket buffer: nothing waits, and what could not be said is said later. */
static void test_a_deaf_manager(void **state)
{
    (void)state;
    fill();
    become_ready(NULL);
    start();
    run_for(300);
    assert_int_equal(count(heard(), "READY=1"), 0);
    run_for(300);
    assert_string_equal(heard(), "READY=1\nSTATUS=ready\n|");
    fill();
    notify_stopping(notify);
    assert_int_equal(count(heard(), "STOPPING=1"), 0);
    run_for(1200);
    assert_string_equal(heard(), "STOPPING=1\n|");
    run_for(1200);
    assert_string_equal(heard(), "");
}

static void test_nobody_listens(void **state)
{
    (void)state;
    static const char *const none[] = {"", "relative", "vsock:2:1234", "@", "/no/such/socket"};
    unsetenv("NOTIFY_SOCKET");
    start();
    assert_null(notify);
    for (size_t i = 0; i < ARRAY_LEN(none); i++) {
        setenv("NOTIFY_SOCKET", none[i], 1);
        start();
        assert_true(!notify == (i < 4));
        if (notify)
            run_for(50);
        notify_stopping(notify);
        notify_free(notify);
        notify = NULL;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ready_once_and_not_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_status_is_told_once_a_second, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stopping, setup, teardown),
        cmocka_unit_test_setup_teardown(test_never_ready_after_stopping, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watchdog, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_is_watched, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_deaf_manager, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_listens, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
