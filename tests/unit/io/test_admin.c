/* The admin port, spoken to byte by byte by a thread with blocking sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/metrics.h"
#include "worker/io/admin.h"

static struct loop *loop;
static struct admin *admin;
static struct wake *done;
static char address[40];
static uint16_t port;
static int health;
static size_t sessions_size;

static int healthz(void *arg, struct buf *out)
{
    assert_ptr_equal(arg, &port);
    buf_adds(out, health == 200 ? "ok\n" : "loop stalled\n");
    return health;
}

static int readyz(void *arg, struct buf *out)
{
    (void)arg;
    buf_adds(out, "draining\n");
    return 503;
}

static int sessions(void *arg, struct buf *out)
{
    (void)arg;
    buf_adds(out, "[");
    buf_addf(out, "%*s", (int)sessions_size, "");
    buf_adds(out, "]");
    return 200;
}

static void on_done(void *arg)
{
    (void)arg;
    loop_stop(loop);
}

/* Below 32768, so that no outgoing connection can hold it. */
static void start_admin(void)
{
    struct admin_pages pages = {healthz, readyz, sessions, &port};
    for (unsigned i = 0; i < 1000; i++) {
        port = (uint16_t)(20000 + ((unsigned)getpid() * 11 + i) % 12000);
        snprintf(address, sizeof address, "127.0.0.1:%d", port);
        if (admin_new(loop, address, &pages, &admin) == 0)
            return;
    }
    fail_msg("no free port");
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
    log_capture(silence, NULL);
    loop = loop_new();
    health = 200;
    sessions_size = 0;
    done = wake_new(loop, on_done, NULL);
    start_admin();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    admin_free(admin);
    wake_free(done);
    loop_free(loop);
    log_capture(NULL, NULL);
    return 0;
}

/* ---- the client's side: runs in a thread while the loop serves ---- */

#define ANSWER_MAX (4 * 1024 * 1024)
static char answer[ANSWER_MAX];
static size_t answer_len;
static const char *question;
static size_t question_len;

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 8};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return connect(fd, (struct sockaddr *)&a, sizeof a) == 0 ? fd : -1;
}

static void read_answer(int fd)
{
    ssize_t n;
    answer_len = 0;
    while ((n = recv(fd, answer + answer_len, ANSWER_MAX - 1 - answer_len, 0)) > 0)
        answer_len += (size_t)n;
    answer[answer_len] = '\0';
    close(fd);
}

static void *ask_thread(void *arg)
{
    int fd = dial();
    (void)arg;
    send(fd, question, question_len, MSG_NOSIGNAL);
    read_answer(fd);
    wake_send(done);
    return NULL;
}

static void run_beside(void *(*fn)(void *))
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fn, NULL), 0);
    loop_run(loop);
    pthread_join(thread, NULL);
}

static const char *ask_bytes(const char *bytes, size_t len)
{
    question = bytes;
    question_len = len;
    run_beside(ask_thread);
    return answer;
}

static const char *ask(const char *text)
{
    return ask_bytes(text, strlen(text));
}

static void assert_status(const char *reply, int status)
{
    char start[20];
    snprintf(start, sizeof start, "HTTP/1.1 %d ", status);
    if (strncmp(reply, start, strlen(start)) != 0)
        fail_msg("expected %d, got: %.100s", status, reply);
}

static const char *body_of(const char *reply)
{
    const char *end = strstr(reply, "\r\n\r\n");
    assert_non_null(end);
    return end + 4;
}

/* ---- tests ---- */

static void test_pages(void **state)
{
    (void)state;
    const char *r = ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_string_equal(r, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
                           "Content-Length: 3\r\nCache-Control: no-store\r\n"
                           "Connection: close\r\n\r\nok\n");
    health = 500;
    r = ask("GET /healthz HTTP/1.0\r\n\r\n");
    assert_status(r, 500);
    assert_string_equal(body_of(r), "loop stalled\n");
    r = ask("GET /readyz?verbose HTTP/1.1\r\n\r\n");
    assert_status(r, 503);
    assert_string_equal(body_of(r), "draining\n");
    r = ask("GET /sessions HTTP/1.1\r\n\r\n");
    assert_status(r, 200);
    assert_non_null(strstr(r, "Content-Type: application/json\r\n"));
    assert_string_equal(body_of(r), "[]");
}

static void test_metrics(void **state)
{
    (void)state;
    metrics_reset();
    metric_add(M_JOBS_RECEIVED, 3);
    const char *r = ask("GET /metrics HTTP/1.1\r\nAccept: */*\r\n\r\n");
    assert_status(r, 200);
    assert_non_null(strstr(r, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert_non_null(strstr(r, "session_worker_jobs_received_total 3\n"));
}

static void test_only_get(void **state)
{
    (void)state;
    static const char *const others[] = {"POST", "HEAD", "PUT", "DELETE", "FOO", "get"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        char request[100];
        snprintf(request, sizeof request, "%s /healthz HTTP/1.1\r\n\r\n", others[i]);
        const char *r = ask(request);
        assert_status(r, 405);
        assert_non_null(strstr(r, "Allow: GET\r\n"));
    }
    /* The answer survives a body that nobody reads. */
    assert_status(ask("POST /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), 405);
}

static void test_nonsense(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int status;
    } cases[] = {
        {"GET /nothing HTTP/1.1\r\n\r\n", 404},
        {"GET / HTTP/1.1\r\n\r\n", 404},
        {"GET /healthz/ HTTP/1.1\r\n\r\n", 404},
        {"GET /../healthz HTTP/1.1\r\n\r\n", 404},
        {"GET /healthz\r\n\r\n", 400},
        {"GET\r\n\r\n", 400},
        {"\r\n\r\n", 400},
        {"GET /healthz HTTP/2.0\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1 x\r\n\r\n", 400},
        {"\x16\x03\x01\r\n\r\n", 400},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_status(ask(cases[i].request), cases[i].status);
    assert_status(ask_bytes("GET /\0healthz HTTP/1.1\r\n\r\n", 26), 400);
}

static void test_long_request(void **state)
{
    (void)state;
    char request[6000];
    memset(request, 'a', sizeof request);
    memcpy(request, "GET /", 5);
    assert_status(ask_bytes(request, sizeof request), 431);
    char fits[4096];
    memset(fits, 'a', sizeof fits);
    memcpy(fits, "GET /", 5);
    memcpy(fits + sizeof fits - 13, " HTTP/1.1\r\n\r\n", 13);
    assert_status(ask_bytes(fits, sizeof fits), 404);
}

static void test_large_page(void **state)
{
    (void)state;
    sessions_size = 3 * 1024 * 1024; /* more than the socket's buffer takes at once */
    const char *r = ask("GET /sessions HTTP/1.1\r\n\r\n");
    assert_status(r, 200);
    assert_int_equal(strlen(body_of(r)), sessions_size + 2);
}

static uint64_t slow_took;

/* One byte now and then: not silent, and never finished. */
static void *drip_thread(void *arg)
{
    int fd = dial();
    uint64_t start = loop_now_ns();
    (void)arg;
    while (send(fd, "x", 1, MSG_NOSIGNAL) == 1 && loop_now_ns() - start < 8 * NS_PER_S)
        usleep(100000);
    slow_took = loop_now_ns() - start;
    close(fd);
    wake_send(done);
    return NULL;
}

static void test_slow_request_is_cut_after_five_seconds(void **state)
{
    (void)state;
    run_beside(drip_thread);
    assert_true(slow_took >= 4 * NS_PER_S && slow_took < 7 * NS_PER_S);
}

static void set_patience(int fd, unsigned ms)
{
    struct timeval patience = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

static bool is_silent(int fd, unsigned ms)
{
    char byte;
    set_patience(fd, ms);
    return recv(fd, &byte, 1, MSG_PEEK) < 0;
}

#define CROWD 32
static bool kept[CROWD];

/* As many as are served at once, who only sit there; then one who asks. */
static void *idle_thread(void *arg)
{
    int idle[CROWD];
    (void)arg;
    for (size_t i = 0; i < CROWD; i++)
        idle[i] = dial();
    int fd = dial();
    set_patience(fd, 3000); /* less than they are given to ask */
    send(fd, question, question_len, MSG_NOSIGNAL);
    read_answer(fd);
    for (size_t i = 0; i < CROWD; i++) {
        kept[i] = is_silent(idle[i], 1);
        close(idle[i]);
    }
    wake_send(done);
    return NULL;
}

static void test_who_only_sits_there_keeps_nobody_out(void **state)
{
    (void)state;
    question = "GET /healthz HTTP/1.1\r\n\r\n";
    question_len = strlen(question);
    run_beside(idle_thread);
    assert_status(answer, 200);
    assert_false(kept[0]); /* the oldest gave way, and nobody else */
    for (size_t i = 1; i < CROWD; i++)
        assert_true(kept[i]);
}

static const char large[] = "GET /sessions HTTP/1.1\r\n\r\n";
static bool waited;

/* The same with clients who are being answered, and take their time to read it. */
static void *busy_thread(void *arg)
{
    int busy[CROWD];
    (void)arg;
    for (size_t i = 0; i < CROWD; i++) {
        int room = 4096;
        busy[i] = dial();
        setsockopt(busy[i], SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        send(busy[i], large, strlen(large), MSG_NOSIGNAL);
        is_silent(busy[i], 3000); /* until its answer begins */
    }
    int fd = dial(); /* waits in the kernel's queue until one of them is gone */
    send(fd, question, question_len, MSG_NOSIGNAL);
    waited = is_silent(fd, 200);
    close(busy[0]);
    set_patience(fd, 3000);
    read_answer(fd);
    for (size_t i = 1; i < CROWD; i++)
        close(busy[i]);
    wake_send(done);
    return NULL;
}

static void test_who_is_being_answered_is_not_cut_off(void **state)
{
    (void)state;
    sessions_size = 5 * 1024 * 1024; /* more than both buffers of a connection take */
    question = "GET /healthz HTTP/1.1\r\n\r\n";
    question_len = strlen(question);
    run_beside(busy_thread);
    assert_true(waited);
    assert_status(answer, 200);
}

static int checked;

static void *check_thread(void *arg)
{
    (void)arg;
    checked = admin_healthcheck(address);
    wake_send(done);
    return NULL;
}

static void test_healthcheck(void **state)
{
    (void)state;
    run_beside(check_thread);
    assert_int_equal(checked, 0);
    health = 500;
    run_beside(check_thread);
    assert_int_equal(checked, 1);
    uint64_t start = loop_now_ns();
    assert_int_equal(admin_healthcheck(address), -ETIMEDOUT); /* nobody runs the loop */
    assert_true(loop_now_ns() - start < 3 * NS_PER_S);
    assert_int_equal(admin_healthcheck("127.0.0.1:1"), -ECONNREFUSED);
    assert_int_equal(admin_healthcheck("nonsense"), -EINVAL);
}

static void test_listening_fails_with_a_reason(void **state)
{
    (void)state;
    struct admin_pages pages = {healthz, readyz, sessions, &port};
    struct admin *second = NULL;
    assert_int_equal(admin_new(loop, address, &pages, &second), -EADDRINUSE);
    assert_int_equal(admin_new(loop, "nonsense", &pages, &second), -EINVAL);
    assert_int_equal(admin_new(loop, "127.0.0.1:", &pages, &second), -EINVAL);
    assert_int_equal(admin_new(loop, "127.0.0.1:http", &pages, &second), -EINVAL);
    assert_null(second);
}

int main(void)
{
    alarm(60);
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_pages),
        T(test_metrics),
        T(test_only_get),
        T(test_nonsense),
        T(test_long_request),
        T(test_large_page),
        T(test_slow_request_is_cut_after_five_seconds),
        T(test_who_only_sits_there_keeps_nobody_out),
        T(test_who_is_being_answered_is_not_cut_off),
        T(test_healthcheck),
        T(test_listening_fails_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
