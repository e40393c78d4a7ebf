/* admin: bytes on the admin port, through its real parser, over loopback.
 *
 * Parts: what is written at once, and what follows a loop turn later.
 *
 * An answer is a whole HTTP response whose length is what it says, with one of the few statuses; a
 * page comes only for a GET of its exact path; nothing of the request is ever sent back. */
#include "worker/io/admin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define ANSWER_MAX (1 << 20)
#define PAGE "the page that nobody else prints\n"

static struct loop *loop;
static struct admin *admin;
static uint16_t port;

static struct client {
    int fd;
    struct watch *watch;
    struct parts parts;
    char answer[ANSWER_MAX];
    size_t answer_len;
} client;

static int page(void *arg, struct buf *out)
{
    (void)arg;
    buf_adds(out, PAGE);
    return 200;
}

/* Below 32768, so that no outgoing connection can hold it. */
static void set_up(void)
{
    static const struct admin_pages pages = {page, page, page, NULL};
    char address[32];
    if (loop)
        return;
    fuzz_config();
    loop = loop_new();
    for (unsigned i = 0; i < 1000 && !admin; i++) {
        port = (uint16_t)(20000 + ((unsigned)getpid() * 13 + i) % 12000);
        snprintf(address, sizeof address, "127.0.0.1:%d", port);
        ASSERT(admin_new(loop, address, &pages, &admin) == 0 || i < 999);
    }
}

/* ---- the client ---- */

/* Without an orderly end, so that no port is kept for a minute. */
static void hang_up(struct client *c)
{
    watch_free(c->watch);
    close(c->fd);
    loop_stop(loop);
}

static void write_next(struct client *c)
{
    struct part p = parts_next(&c->parts);
    if (p.text && p.len > 0)
        (void)!send(c->fd, p.text, p.len, MSG_NOSIGNAL);
    if (!c->parts.at) {
        shutdown(c->fd, SHUT_WR);
        watch_set(c->watch, true, false);
    }
}

static void on_ready(void *arg, bool readable, bool writable)
{
    struct client *c = arg;
    if (writable)
        write_next(c);
    if (!readable)
        return;
    ssize_t n = recv(c->fd, c->answer + c->answer_len, ANSWER_MAX - c->answer_len, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        hang_up(c);
    else
        c->answer_len += (size_t)n;
}

static int dial(void)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger abrupt = {1, 0};
    /* Without waiting: libFuzzer's alarm would interrupt it. */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ASSERT(fd >= 0 && (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 || errno == EINPROGRESS));
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt);
    return fd;
}

static void talk(struct client *c, const uint8_t *data, size_t size)
{
    c->fd = dial();
    c->parts = parts_of(data, size);
    c->answer_len = 0;
    c->watch = watch_new(loop, c->fd, on_ready, c);
    watch_set(c->watch, true, true);
    loop_run(loop);
}

/* ---- what must hold ---- */

/* What the port has seen: the input without the byte between its parts; spaces count once. */
static bool asks_for(const char *path, const uint8_t *data, size_t size)
{
    char want[32], seen[32] = " ";
    size_t n = (size_t)snprintf(want, sizeof want, " GET %s", path), len = 1;
    for (size_t i = 0; i < size && len < n + 1; i++)
        if (data[i] != PART_END && (data[i] != ' ' || seen[len - 1] != ' '))
            seen[len++] = (char)data[i];
    return len == n + 1 && memcmp(seen, want, n) == 0 && (seen[n] == ' ' || seen[n] == '?');
}

static void check_page(const uint8_t *data, size_t size, size_t body)
{
    static const char *const paths[] = {"/healthz", "/readyz", "/sessions", "/metrics"};
    bool asked = false;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        asked |= asks_for(paths[i], data, size);
    ASSERT(asked && body > 0);
}

static size_t check_head(struct client *c)
{
    const char *end, *length;
    long n;
    c->answer[MIN(c->answer_len, (size_t)ANSWER_MAX - 1)] = '\0';
    end = strstr(c->answer, "\r\n\r\n");
    length = strstr(c->answer, "Content-Length: ");
    ASSERT(end && length && length < end);
    n = strtol(length + strlen("Content-Length: "), NULL, 10);
    ASSERT(n >= 0 && c->answer_len == (size_t)(end + 4 - c->answer) + (size_t)n);
    return (size_t)n;
}

static void check_answer(struct client *c, const uint8_t *data, size_t size)
{
    static const char *const refusals[] = {"400", "404", "405", "431"};
    if (c->answer_len == 0)
        return;
    size_t body = check_head(c);
    bool refused = false;
    ASSERT(memcmp(c->answer, "HTTP/1.1 ", 9) == 0);
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++)
        refused |= memcmp(c->answer + 9, refusals[i], 3) == 0;
    ASSERT(refused || memcmp(c->answer + 9, "200", 3) == 0);
    ASSERT(!refused || body < 40); /* a reason of ours: there is no room for an echo */
    if (!refused)
        check_page(data, size, body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    set_up();
    talk(&client, data, size);
    check_answer(&client, data, size);
    return 0;
}
