/* The http module against a server in the same loop that answers by path, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/xalloc.h"
#include "worker/io/http.h"
#include "worker/io/transfer.h"

static struct loop *loop;
static struct http *http;

/* ---- the server ---- */

#define CONNECTIONS_MAX 256
#define REQUEST_MAX 65536

struct connection {
    int fd; /* -1: unused */
    struct watch *watch;
    char request[REQUEST_MAX];
    size_t len;
    unsigned requests;
};

static struct server {
    int fd;
    uint16_t port;
    struct watch *watch;
    struct connection connections[CONNECTIONS_MAX];
    unsigned accepted, requests, open;
    struct buf seen; /* every request, as it came */
} server;

static void close_connection(struct connection *c)
{
    watch_free(c->watch);
    close(c->fd);
    c->fd = -1;
    server.open--;
}

static void answer(struct connection *c, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = send(c->fd, text, len, MSG_NOSIGNAL);
        if (n < 0)
            return; /* the client has had enough */
        text += n;
        len -= (size_t)n;
    }
}

static void answer_with(struct connection *c, const char *status, const char *headers,
                        const char *body)
{
    struct buf out CLEANUP(buf_done);
    buf_init(&out, 1 << 20);
    buf_addf(&out, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n%s", status, strlen(body), headers,
             body);
    answer(c, out.data, out.len);
}

/* The request itself as the body. */
static void serve_echo(struct connection *c)
{
    answer_with(c, "200 OK", "", c->request);
}

static void serve_headers(struct connection *c)
{
    answer_with(c, "503 Busy",
                "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                "CONTENT-TYPE:  text/plain; charset=utf-8 \r\n"
                "X-Secret: no\r\nSet-Cookie: a=b\r\n"
                "Retry-After-sandbox-create: 7\r\nX-RateLimit-Remaining-sandbox-create: 3\r\n"
                "Location: http://127.0.0.1/elsewhere\r\n",
                "busy");
}

static void serve_redirect(struct connection *c)
{
    char headers[100];
    snprintf(headers, sizeof headers, "Location: http://localhost:%d/echo\r\n", server.port);
    answer_with(c, "307 Temporary Redirect", headers, "");
}

static void serve_continue(struct connection *c)
{
    static const char early[] = "HTTP/1.1 103 Early Hints\r\nLocation: /early\r\n\r\n";
    answer(c, early, sizeof early - 1);
    answer_with(c, "204 No Content", "", "");
}

/* 100 000 bytes in chunks, without a length in front. */
static void serve_chunks(struct connection *c)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    struct buf out CLEANUP(buf_done);
    buf_init(&out, 1 << 20);
    buf_add(&out, head, sizeof head - 1);
    for (int i = 0; i < 100; i++)
        buf_addf(&out, "3e8\r\n%01000d\r\n", i);
    buf_adds(&out, "0\r\n\r\n");
    answer(c, out.data, out.len);
}

static void serve_header_flood(struct connection *c)
{
    struct buf out CLEANUP(buf_done);
    buf_init(&out, 1 << 20);
    buf_adds(&out, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 100; i++)
        buf_addf(&out, "X-Flood-%d: %01000d\r\n", i, 0);
    buf_adds(&out, "Content-Length: 0\r\n\r\n");
    answer(c, out.data, out.len);
}

static void serve_nothing(struct connection *c)
{
    (void)c;
}

static void serve_half(struct connection *c)
{
    static const char half[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345";
    answer(c, half, sizeof half - 1);
    close_connection(c);
}

static void serve_close(struct connection *c)
{
    close_connection(c);
}

/* A kept-alive connection that ends just when it is used again. */
static void serve_close_if_used(struct connection *c)
{
    if (c->requests > 1)
        close_connection(c);
    else
        answer_with(c, "200 OK", "", "fresh");
}

static void serve_502(struct connection *c)
{
    answer_with(c, "502 Bad Gateway", "", "");
}

static struct timer *stream_timer;
static struct connection *streaming;
static unsigned frames_sent;

static void next_frame(void *arg)
{
    (void)arg;
    char frame[20];
    bool last = ++frames_sent == 3;
    snprintf(frame, sizeof frame, "2\r\nf%u\r\n%s", frames_sent, last ? "0\r\n\r\n" : "");
    answer(streaming, frame, strlen(frame));
    if (!last)
        timer_arm(stream_timer, loop_now_ns() + 5 * NS_PER_MS);
}

static void serve_stream(struct connection *c)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    answer(c, head, sizeof head - 1);
    streaming = c;
    frames_sent = 0;
    timer_arm(stream_timer, loop_now_ns() + 5 * NS_PER_MS);
}

static const struct {
    const char *path;
    void (*serve)(struct connection *);
} routes[] = {
    {"/echo", serve_echo},         {"/headers", serve_headers},
    {"/redirect", serve_redirect}, {"/continue", serve_continue},
    {"/chunks", serve_chunks},     {"/header-flood", serve_header_flood},
    {"/nothing", serve_nothing},   {"/half", serve_half},
    {"/close", serve_close},       {"/close-if-used", serve_close_if_used},
    {"/stream", serve_stream},     {"/502", serve_502},
};

static bool whole_request(const struct connection *c)
{
    const char *end = strstr(c->request, "\r\n\r\n");
    if (!end)
        return false;
    const char *length = strstr(c->request, "Content-Length: ");
    size_t body = length && length < end ? strtoul(length + 16, NULL, 10) : 0;
    return c->len >= (size_t)(end + 4 - c->request) + body;
}

static void serve(struct connection *c)
{
    server.requests++;
    c->requests++;
    buf_add(&server.seen, c->request, c->len);
    c->len = 0;
    const char *path = strchr(c->request, ' ');
    for (size_t i = 0; path && i < ARRAY_LEN(routes); i++) {
        size_t n = strlen(routes[i].path);
        if (strncmp(path + 1, routes[i].path, n) == 0 && strchr(" ?/", path[1 + n])) {
            routes[i].serve(c);
            return;
        }
    }
    answer_with(c, "404 Not Found", "", "no such path");
}

static void on_request(void *arg, bool readable, bool writable)
{
    struct connection *c = arg;
    (void)readable;
    (void)writable;
    ssize_t n = recv(c->fd, c->request + c->len, REQUEST_MAX - 1 - c->len, MSG_DONTWAIT);
    if (n <= 0) {
        close_connection(c);
        return;
    }
    c->len += (size_t)n;
    c->request[c->len] = '\0';
    if (whole_request(c))
        serve(c);
}

static void on_connect(void *arg, bool readable, bool writable)
{
    (void)arg;
    (void)readable;
    (void)writable;
    int fd = accept4(server.fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    server.accepted++;
    server.open++;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &server.connections[i];
        if (c->fd >= 0)
            continue;
        c->fd = fd;
        c->len = c->requests = 0;
        c->watch = watch_new(loop, fd, on_request, c);
        watch_set(c->watch, true, false);
        return;
    }
    fail_msg("more than %d connections", CONNECTIONS_MAX);
}

/* Below 32768, so that no outgoing connection can hold it. */
static void bind_low(int fd, uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (unsigned i = 0; i < 1000; i++) {
        *port = (uint16_t)(20000 + ((unsigned)getpid() * 7 + i) % 12000);
        a.sin_port = htons(*port);
        if (bind(fd, (struct sockaddr *)&a, sizeof a) == 0)
            return;
    }
    fail_msg("no free port");
}

static void server_start(void)
{
    memset(&server, 0, sizeof server); /* too large for a literal on the stack */
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        server.connections[i].fd = -1;
    buf_init(&server.seen, 1 << 22);
    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(server.fd >= 0);
    bind_low(server.fd, &server.port);
    assert_int_equal(listen(server.fd, 256), 0);
    server.watch = watch_new(loop, server.fd, on_connect, NULL);
    watch_set(server.watch, true, false);
    stream_timer = timer_new(loop, next_frame, NULL);
}

static void server_stop(void)
{
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        if (server.connections[i].fd >= 0)
            close_connection(&server.connections[i]);
    }
    watch_free(server.watch);
    close(server.fd);
    timer_free(stream_timer);
    buf_done(&server.seen);
}

static unsigned times_seen(const char *text)
{
    unsigned n = 0;
    for (const char *p = buf_text(&server.seen); (p = strstr(p, text)); p++)
        n++;
    return n;
}

/* ---- the client ---- */

#define REPLIES_MAX 512

static struct answer_seen {
    uint64_t id;
    enum fault fault;
    int status;
    bool more;
    uint64_t date_ms;
    char *body, *type, *location, *retry_after, *remaining, *secret, *text;
    size_t n_headers;
} replies[REPLIES_MAX];
static size_t n_replies, wanted_replies;
static bool inside_send;
static void (*on_reply_hook)(uint64_t id);

static void on_reply(void *arg, uint64_t id, const struct reply *r)
{
    assert_ptr_equal(arg, &server);
    assert_false(inside_send);
    assert_true(n_replies < REPLIES_MAX);
    assert_true(r->fault || r->body);
    assert_true(r->fault || r->body[r->body_len] == '\0');
    assert_true(!r->fault || r->fault_text);
    assert_int_equal(r->status == 0, r->fault != FAULT_NONE);
    struct answer_seen *a = &replies[n_replies++];
    *a = (struct answer_seen){.id = id,
                              .fault = r->fault,
                              .status = r->status,
                              .more = r->more,
                              .date_ms = r->date_ms,
                              .n_headers = r->n_headers,
                              .body = xstrdup0(r->body),
                              .text = xstrdup0(r->fault_text)};
    a->type = xstrdup0(reply_header(r, "content-type"));
    a->location = xstrdup0(reply_header(r, "location"));
    a->retry_after = xstrdup0(reply_header(r, "retry-after-sandbox-create"));
    a->remaining = xstrdup0(reply_header(r, "x-ratelimit-remaining-sandbox-create"));
    a->secret = xstrdup0(reply_header(r, "x-secret"));
    if (on_reply_hook)
        on_reply_hook(id);
    if (n_replies >= wanted_replies)
        loop_stop(loop);
}

static void forget_replies(void)
{
    for (size_t i = 0; i < n_replies; i++) {
        free(replies[i].body);
        free(replies[i].type);
        free(replies[i].location);
        free(replies[i].retry_after);
        free(replies[i].remaining);
        free(replies[i].secret);
        free(replies[i].text);
    }
    n_replies = 0;
}

static void http_start(unsigned max_in_flight, bool allow_http)
{
    struct http_options o = {.allow_http = allow_http,
                             .user_agent = "test/1",
                             .max_in_flight = max_in_flight,
                             .max_connects = 16};
    http = http_new(loop, &o, on_reply, &server);
}

static int setup(void **state)
{
    (void)state;
    loop = loop_new();
    server_start();
    http_start(1000, true);
    on_reply_hook = NULL;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_free(http);
    server_stop();
    loop_free(loop);
    forget_replies();
    return 0;
}

static struct call call_to(const char *method, const char *path)
{
    struct call c;
    call_init(&c, 1, method);
    c.url = xasprintf("http://127.0.0.1:%d%s", server.port, path);
    c.timeout_ms = 5000;
    c.max_reply = 100000;
    return c;
}

static void send_call(uint64_t id, struct call c)
{
    inside_send = true;
    http_send(http, id, &c);
    inside_send = false;
    assert_null(c.url); /* taken over */
}

static void on_out_of_time(void *arg)
{
    *(bool *)arg = true;
    loop_stop(loop);
}

/* Runs until n more replies are there, at most ms. */
static void await_for(size_t n, unsigned ms)
{
    bool out_of_time = false;
    struct timer *t = timer_new(loop, on_out_of_time, &out_of_time);
    timer_arm(t, loop_now_ns() + ms * NS_PER_MS);
    wanted_replies = n_replies + n;
    loop_run(loop);
    timer_free(t);
}

static struct answer_seen *await(size_t n)
{
    size_t before = n_replies;
    await_for(n, 5000);
    assert_int_equal(n_replies, before + n);
    return &replies[before];
}

/* Lets the loop run without expecting anything. */
static void idle_for(unsigned ms)
{
    size_t before = n_replies;
    await_for(REPLIES_MAX, ms);
    assert_int_equal(n_replies, before);
}

/* ---- requests ---- */

static void test_get_says_what_was_asked_and_no_more(void **state)
{
    (void)state;
    struct call c = call_to("GET", "/echo/%2e%2e/../x?y=1");
    call_header(&c, "Authorization", "Bearer k");
    call_header(&c, "X-Empty", "");
    send_call(7, c);
    struct answer_seen *a = await(1);
    assert_int_equal(a->id, 7);
    assert_int_equal(a->status, 200);
    assert_false(a->more);
    char expected[300];
    snprintf(expected, sizeof expected,
             "GET /echo/%%2e%%2e/../x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: test/1\r\n"
             "Accept: */*\r\nAuthorization: Bearer k\r\nX-Empty:\r\n\r\n",
             server.port);
    assert_string_equal(a->body, expected);
    assert_int_equal(http_in_flight(http), 0);
}

static void test_post_with_a_body(void **state)
{
    (void)state;
    struct call c = call_to("POST", "/echo");
    c.content_type = "application/json";
    c.body = xstrdup("{\"a\":1}");
    c.body_len = 7;
    send_call(1, c);
    const char *body = await(1)->body;
    assert_non_null(strstr(body, "POST /echo HTTP/1.1\r\n"));
    assert_non_null(strstr(body, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(body, "\r\nContent-Length: 7\r\n"));
    assert_non_null(strstr(body, "\r\n\r\n{\"a\":1}"));
    assert_null(strstr(body, "Expect"));
}

static void test_post_without_a_body(void **state)
{
    (void)state;
    send_call(1, call_to("POST", "/echo"));
    const char *body = await(1)->body;
    assert_non_null(strstr(body, "POST /echo HTTP/1.1\r\n"));
    assert_non_null(strstr(body, "\r\nContent-Length: 0\r\n"));
    assert_null(strstr(body, "Content-Type"));
}

/* One handle, every kind of request after every other kind. */
static void test_methods_leave_no_trace_in_the_handle(void **state)
{
    (void)state;
    static const char *const methods[] = {"GET", "POST", "DELETE", "PUT"};
    uint64_t id = 0;
    for (size_t i = 0; i < ARRAY_LEN(methods) * ARRAY_LEN(methods); i++) {
        for (size_t k = 0; k < 2; k++) {
            const char *method = methods[k ? i % ARRAY_LEN(methods) : i / ARRAY_LEN(methods)];
            struct call c = call_to(method, "/echo");
            bool with_body = strcmp(method, "PUT") == 0 || (strcmp(method, "POST") == 0 && k);
            if (with_body) {
                c.content_type = "application/json";
                c.body = xstrdup("{}");
                c.body_len = 2;
            }
            send_call(++id, c);
            const char *body = await(1)->body;
            assert_memory_equal(body, method, strlen(method));
            assert_int_equal(strstr(body, "\r\n\r\n{}") != NULL, with_body);
            assert_int_equal(strstr(body, "Content-Type") != NULL, with_body);
        }
    }
    assert_int_equal(server.accepted, 1);
}

static void test_what_cannot_be_said_is_refused(void **state)
{
    (void)state;
    struct call c = call_to("GET", "/echo");
    call_header(&c, "X-Ok", "fine");
    c.headers[0].value[1] = '\n';
    send_call(1, c);
    struct call user = call_to("GET", "/echo");
    free(user.url);
    user.url = xasprintf("http://a:b@127.0.0.1:%d/echo", server.port);
    send_call(2, user);
    struct call scheme = call_to("GET", "/echo");
    free(scheme.url);
    scheme.url = xstrdup("file:///etc/passwd");
    send_call(3, scheme);
    struct call line = call_to("GET", "/echo\r\nX: y");
    send_call(4, line);
    struct answer_seen *a = await(4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(a[i].fault, FAULT_REFUSED);
    assert_int_equal(server.requests, 0);
}

static void test_plain_http_only_when_allowed(void **state)
{
    (void)state;
    http_free(http);
    http_start(10, false);
    send_call(1, call_to("GET", "/echo"));
    assert_int_equal(await(1)->fault, FAULT_REFUSED);
    assert_int_equal(server.accepted, 0);
}

static void test_environment_proxy_is_ignored(void **state)
{
    (void)state;
    setenv("http_proxy", "http://127.0.0.1:1/", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1/", 1);
    send_call(1, call_to("GET", "/echo"));
    assert_int_equal(await(1)->status, 200);
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
}

static void test_sandbox_host_must_not_lead_to_this_machine(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.1", "localhost",          "[::1]",
                                        "0.0.0.0",   "[::ffff:127.0.0.1]", "169.254.169.254"};
    http_free(http);
    http_start(10, false);
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        struct call c = call_to("GET", "/echo");
        free(c.url);
        c.url = xasprintf("https://%s:%d/echo", hosts[i], server.port);
        c.own_host = true;
        send_call(i + 1, c);
        assert_int_equal(await(1)->fault, FAULT_REFUSED);
    }
    assert_int_equal(server.accepted, 0);
}

/* ---- answers ---- */

static void test_only_listed_headers_are_kept(void **state)
{
    (void)state;
    send_call(1, call_to("GET", "/headers"));
    struct answer_seen *a = await(1);
    assert_int_equal(a->status, 503);
    assert_string_equal(a->body, "busy");
    assert_string_equal(a->type, "text/plain; charset=utf-8");
    assert_string_equal(a->retry_after, "7");
    assert_string_equal(a->remaining, "3");
    assert_string_equal(a->location, "http://127.0.0.1/elsewhere");
    assert_null(a->secret);
    assert_int_equal(a->n_headers, 5);
    assert_true(a->date_ms == UINT64_C(784111777000));
}

static void test_redirect_is_an_answer(void **state)
{
    (void)state;
    send_call(1, call_to("GET", "/redirect"));
    assert_int_equal(await(1)->status, 307);
    assert_int_equal(server.requests, 1);
}

static void test_informational_answer_is_not_the_answer(void **state)
{
    (void)state;
    send_call(1, call_to("GET", "/continue"));
    struct answer_seen *a = await(1);
    assert_int_equal(a->status, 204);
    assert_null(a->location);
    assert_string_equal(a->body, "");
}

static void test_dates(void **state)
{
    (void)state;
    assert_true(http_date_ms("Thu, 01 Jan 1970 00:00:01 GMT") == 1000);
    assert_true(http_date_ms("Tue, 24 Nov 2026 08:10:38 GMT") == UINT64_C(1795507838000));
    static const char *const bad[] = {"",
                                      "Sunday, 06-Nov-94 08:49:37 GMT",
                                      "Sun Nov  6 08:49:37 1994",
                                      "Sun, 06 Nov 1994 08:49:37 CET",
                                      "Sun, 06 Nix 1994 08:49:37 GMT",
                                      "Sun, 36 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 19x4 08:49:37 GMT"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_true(http_date_ms(bad[i]) == 0);
}

/* ---- limits ---- */

static void test_body_limit_counts_chunks(void **state)
{
    (void)state;
    struct call fits = call_to("GET", "/chunks");
    send_call(1, fits);
    struct answer_seen *a = await(1);
    assert_int_equal(a->status, 200);
    assert_int_equal(strlen(a->body), 100000);
    struct call too_small = call_to("GET", "/chunks");
    too_small.max_reply = 99999;
    send_call(2, too_small);
    assert_int_equal(await(1)->fault, FAULT_TOO_LARGE);
}

static void test_header_flood(void **state)
{
    (void)state;
    send_call(1, call_to("GET", "/header-flood"));
    assert_int_equal(await(1)->fault, FAULT_TOO_LARGE);
}

static void test_deadline_after_sending(void **state)
{
    (void)state;
    struct call c = call_to("GET", "/nothing");
    c.timeout_ms = 30;
    uint64_t start = loop_now_ns();
    send_call(1, c);
    assert_int_equal(await(1)->fault, FAULT_TIMEOUT);
    uint64_t took = loop_now_ns() - start;
    assert_true(took >= 30 * NS_PER_MS && took < 500 * NS_PER_MS);
    assert_int_equal(http_in_flight(http), 0);
}

static void test_waiting_for_room_runs_against_the_deadline(void **state)
{
    (void)state;
    http_free(http);
    http_start(2, true);
    for (uint64_t id = 1; id <= 2; id++)
        send_call(id, call_to("GET", "/nothing"));
    struct call c = call_to("GET", "/echo");
    c.timeout_ms = 30;
    send_call(3, c);
    assert_int_equal(http_in_flight(http), 3);
    struct answer_seen *a = await(1);
    assert_int_equal(a->id, 3);
    assert_int_equal(a->fault, FAULT_CONNECT);
    assert_int_equal(times_seen("/echo"), 0);
    send_call(4, call_to("GET", "/echo"));
    idle_for(20);
    http_cancel(http, 1); /* makes room */
    assert_int_equal(await(1)->id, 4);
}

/* ---- faults ---- */

static void test_nobody_listens(void **state)
{
    (void)state;
    send_call(1, call_to("POST", "/echo")); /* what its handle has sent is not what this one sent */
    assert_int_equal(await(1)->status, 200);
    struct call c = call_to("POST", "/echo");
    free(c.url);
    c.url = xstrdup("http://127.0.0.1:1/echo");
    send_call(2, c);
    assert_int_equal(await(1)->fault, FAULT_CONNECT);
}

static void test_no_descriptor_left_says_so(void **state)
{
    (void)state;
    struct rlimit files, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    send_call(1, call_to("GET", "/echo"));
    assert_int_equal(await(1)->status, 200); /* what is made once is there now */
    struct call c = call_to("GET", "/echo");
    free(c.url);
    c.url = xstrdup("http://127.0.0.1:1/echo"); /* no connection of before will do */
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = files.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    send_call(2, c);
    const struct answer_seen *a = await(1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    assert_int_equal(a->fault, FAULT_CONNECT);
    assert_non_null(strstr(a->text, "no file descriptor left"));
}

static void test_half_an_answer_and_none(void **state)
{
    (void)state;
    send_call(1, call_to("GET", "/half"));
    assert_int_equal(await(1)->fault, FAULT_LOST);
    struct call c = call_to("POST", "/close");
    c.repeatable = true; /* but the connection was new: that is no race with an idle time-out */
    send_call(2, c);
    assert_int_equal(await(1)->fault, FAULT_LOST);
    assert_int_equal(server.requests, 2);
}

static void test_dead_kept_alive_connection_repeats_what_may_be_repeated(void **state)
{
    (void)state;
    send_call(1, call_to("GET", "/close-if-used"));
    assert_string_equal(await(1)->body, "fresh");
    struct call c = call_to("GET", "/close-if-used");
    c.repeatable = true;
    send_call(2, c);
    assert_string_equal(await(1)->body, "fresh");
    assert_int_equal(server.requests, 3);
    assert_int_equal(server.accepted, 2);
}

static void test_dead_kept_alive_connection_repeats_nothing_else(void **state)
{
    (void)state;
    send_call(1, call_to("GET", "/close-if-used"));
    assert_string_equal(await(1)->body, "fresh");
    struct call c = call_to("POST", "/close-if-used");
    c.content_type = "application/json";
    c.body = xstrdup("{}");
    c.body_len = 2;
    send_call(2, c);
    assert_int_equal(await(1)->fault, FAULT_LOST);
    assert_int_equal(times_seen("POST"), 1);
}

/* ---- connections ---- */

static void test_api_connection_is_reused(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= 20; id++) {
        send_call(id, call_to("GET", "/echo"));
        await(1);
    }
    assert_int_equal(server.accepted, 1);
}

static struct call probe_of(const char *path, unsigned sandbox)
{
    struct call c = call_to("GET", path);
    free(c.url);
    c.url = xasprintf("http://4444-%u.localhost:%d%s", sandbox, server.port, path);
    c.own_host = true;
    c.close_on_2xx = true;
    return c;
}

static void test_probes_of_a_sandbox_share_a_connection_that_ends_with_200(void **state)
{
    (void)state;
    uint64_t id = 0;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned sandbox = 0; sandbox < 40; sandbox++)
            send_call(++id, probe_of("/502", sandbox));
        await(40);
    }
    assert_int_equal(server.accepted, 40);
    assert_int_equal(server.open, 40);
    for (unsigned sandbox = 0; sandbox < 40; sandbox++)
        send_call(++id, probe_of("/echo", sandbox));
    await(40);
    idle_for(5);
    assert_int_equal(server.accepted, 40);
    assert_int_equal(server.open, 0);
}

/* The handle that closed its connection must not close those that it has later. */
static void test_closing_is_forgotten(void **state)
{
    (void)state;
    send_call(1, probe_of("/echo", 1));
    await(1);
    for (uint64_t id = 2; id < 5; id++) {
        send_call(id, probe_of("/502", 2));
        await(1);
    }
    assert_int_equal(server.accepted, 2);
}

static void test_many_at_once(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= 200; id++)
        send_call(id, call_to("GET", "/echo"));
    assert_int_equal(http_in_flight(http), 200);
    struct answer_seen *a = await(200);
    bool seen[201] = {false};
    for (size_t i = 0; i < 200; i++) {
        assert_int_equal(a[i].status, 200);
        assert_false(seen[a[i].id]);
        seen[a[i].id] = true;
    }
    assert_int_equal(server.requests, 200);
}

/* ---- streams ---- */

static void test_stream_grows(void **state)
{
    (void)state;
    struct call c = call_to("GET", "/stream");
    c.stream = true;
    send_call(1, c);
    struct answer_seen *a = await(3);
    assert_string_equal(a[0].body, "f1");
    assert_true(a[0].more);
    assert_int_equal(a[0].status, 200);
    assert_string_equal(a[1].body, "f1f2");
    assert_true(a[1].more);
    assert_string_equal(a[2].body, "f1f2f3");
    assert_false(a[2].more);
}

static void cancel_it(uint64_t id)
{
    http_cancel(http, id);
}

static void test_stream_cancelled_from_its_own_reply(void **state)
{
    (void)state;
    on_reply_hook = cancel_it;
    struct call c = call_to("GET", "/stream");
    c.stream = true;
    send_call(1, c);
    assert_true(await(1)->more);
    idle_for(30);
    assert_int_equal(http_in_flight(http), 0);
}

/* ---- cancelling, dropping, sending from replies ---- */

static void test_cancelled_call_never_answers(void **state)
{
    (void)state;
    send_call(1, call_to("GET", "/echo"));
    http_cancel(http, 1); /* before anything moved */
    send_call(2, call_to("GET", "/nothing"));
    idle_for(20);
    assert_int_equal(server.requests, 1);
    http_cancel(http, 2); /* under way */
    http_cancel(http, 3); /* unknown */
    idle_for(20);
    assert_int_equal(http_in_flight(http), 0);
    assert_int_equal(server.open, 0);
}

static void cancel_the_others(uint64_t id)
{
    for (uint64_t other = 1; other <= 50; other++) {
        if (other != id)
            http_cancel(http, other);
    }
}

static void test_cancelling_calls_that_end_in_the_same_turn(void **state)
{
    (void)state;
    on_reply_hook = cancel_the_others;
    for (uint64_t id = 1; id <= 50; id++)
        send_call(id, call_to("GET", id % 2 ? "/echo" : "/close"));
    await(1);
    idle_for(20);
    assert_int_equal(http_in_flight(http), 0);
}

static uint64_t next_id;

static void send_again(uint64_t id)
{
    (void)id;
    if (next_id < 20) {
        struct call c = call_to("GET", "/echo");
        next_id++;
        http_send(http, next_id, &c);
    }
}

static void test_sending_from_a_reply(void **state)
{
    (void)state;
    on_reply_hook = send_again;
    next_id = 1;
    send_call(1, call_to("GET", "/echo"));
    await(20);
    assert_int_equal(server.accepted, 1);
}

static void test_drop_unsent(void **state)
{
    (void)state;
    send_call(1, call_to("GET", "/nothing"));
    idle_for(20);
    send_call(2, call_to("POST", "/echo")); /* waits for the end of the turn */
    inside_send = true;
    http_drop_unsent(http);
    inside_send = false;
    struct answer_seen *a = await(1);
    assert_int_equal(a->id, 2);
    assert_int_equal(a->fault, FAULT_CONNECT);
    assert_int_equal(http_in_flight(http), 1); /* the sent one is still under way */
    assert_int_equal(server.requests, 1);
}

static void test_free_with_everything_under_way(void **state)
{
    (void)state;
    send_call(1, call_to("GET", "/nothing"));
    send_call(2, call_to("GET", "/half"));
    idle_for(0);
    send_call(3, call_to("GET", "/echo"));
    struct call stream = call_to("GET", "/stream");
    stream.stream = true;
    send_call(4, stream);
    /* teardown frees */
}

int main(void)
{
    alarm(60);
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_get_says_what_was_asked_and_no_more),
        T(test_post_with_a_body),
        T(test_post_without_a_body),
        T(test_methods_leave_no_trace_in_the_handle),
        T(test_what_cannot_be_said_is_refused),
        T(test_plain_http_only_when_allowed),
        T(test_environment_proxy_is_ignored),
        T(test_sandbox_host_must_not_lead_to_this_machine),
        T(test_only_listed_headers_are_kept),
        T(test_redirect_is_an_answer),
        T(test_informational_answer_is_not_the_answer),
        T(test_dates),
        T(test_body_limit_counts_chunks),
        T(test_header_flood),
        T(test_deadline_after_sending),
        T(test_waiting_for_room_runs_against_the_deadline),
        T(test_nobody_listens),
        T(test_no_descriptor_left_says_so),
        T(test_half_an_answer_and_none),
        T(test_dead_kept_alive_connection_repeats_what_may_be_repeated),
        T(test_dead_kept_alive_connection_repeats_nothing_else),
        T(test_api_connection_is_reused),
        T(test_probes_of_a_sandbox_share_a_connection_that_ends_with_200),
        T(test_closing_is_forgotten),
        T(test_many_at_once),
        T(test_stream_grows),
        T(test_stream_cancelled_from_its_own_reply),
        T(test_cancelled_call_never_answers),
        T(test_cancelling_calls_that_end_in_the_same_turn),
        T(test_sending_from_a_reply),
        T(test_drop_unsent),
        T(test_free_with_everything_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
