/* admin: a small HTTP server of its own for four pages.
 *
 * libevent's evhttp bounds neither the number of connections nor the time a whole request may take
 * (its time-out starts anew with every byte), and this port must stay harmless when somebody plays
 * with it. What is needed is little: one request a connection, GET, no body, and then close.
 *
 *   reading -> writing -> lingering -> closed
 *
 * Lingering waits for the peer to close: closing with unread bytes would reset the connection and
 * could take the answer with it. One timer bounds reading, one more period everything after it. */
#include "worker/io/admin.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/xalloc.h"

#define CLIENTS_MAX 32
#define REQUEST_MAX 4096
#define PAGE_MAX (16 * 1024 * 1024)
#define READ_NS (5 * NS_PER_S)
#define WRITE_NS (5 * NS_PER_S)
#define ACCEPT_AGAIN_NS NS_PER_S
#define HEALTH_NS (2 * NS_PER_S)

#define TEXT "text/plain; charset=utf-8"

struct client {
    struct admin *admin; /* borrowed */
    TAILQ_ENTRY(client) link;
    int fd;
    struct watch *watch;
    struct timer *deadline;
    enum { READING, WRITING, LINGERING } state;
    char request[REQUEST_MAX + 1];
    size_t request_len;
    struct buf reply;
    size_t sent;
};

struct admin {
    struct loop *loop; /* borrowed */
    struct admin_pages pages;
    int fd;
    struct watch *watch;
    struct timer *again; /* accepting failed for want of something: try again then */
    TAILQ_HEAD(client_list, client) clients;
    size_t n_clients;
};

/* ---- pages ---- */

static int page_metrics(const struct admin *a, struct buf *out)
{
    (void)a;
    metrics_print(out);
    return 200;
}

static int page_healthz(const struct admin *a, struct buf *out)
{
    return a->pages.healthz(a->pages.arg, out);
}

static int page_readyz(const struct admin *a, struct buf *out)
{
    return a->pages.readyz(a->pages.arg, out);
}

static int page_sessions(const struct admin *a, struct buf *out)
{
    return a->pages.sessions(a->pages.arg, out);
}

static const struct page {
    const char *path;
    const char *type;
    int (*print)(const struct admin *, struct buf *out);
} pages[] = {
    {"/healthz", TEXT, page_healthz},
    {"/readyz", TEXT, page_readyz},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics},
    {"/sessions", "application/json", page_sessions},
};

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        if (reasons[i].status == status)
            return reasons[i].reason;
    }
    return "Status";
}

/* ---- a connection ---- */

static void client_free(struct client *c)
{
    TAILQ_REMOVE(&c->admin->clients, c, link);
    c->admin->n_clients--;
    watch_set(c->admin->watch, true, false); /* there is room again */
    watch_free(c->watch);
    timer_free(c->deadline);
    close(c->fd);
    buf_done(&c->reply);
    free(c);
}

static void on_deadline(void *arg)
{
    client_free(arg);
}

static void write_on(struct client *c)
{
    while (c->sent < c->reply.len) {
        ssize_t n = send(c->fd, c->reply.data + c->sent, c->reply.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch_set(c->watch, false, true);
            return;
        }
        if (n < 0) {
            client_free(c);
            return;
        }
        c->sent += (size_t)n;
    }
    c->state = LINGERING;
    shutdown(c->fd, SHUT_WR);
    watch_set(c->watch, true, false);
}

static void answer(struct client *c, int status, const char *type, const struct buf *body)
{
    buf_addf(&c->reply,
             "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
             "Cache-Control: no-store\r\nConnection: close\r\n%s\r\n",
             status, reason_of(status), type, body->len, status == 405 ? "Allow: GET\r\n" : "");
    buf_add(&c->reply, buf_text(body), body->len);
    c->state = WRITING;
    timer_arm(c->deadline, loop_now_ns() + WRITE_NS);
    write_on(c);
}

static void answer_text(struct client *c, int status)
{
    struct buf body CLEANUP(buf_done);
    buf_init(&body, 100);
    buf_addf(&body, "%s\n", reason_of(status));
    answer(c, status, TEXT, &body);
}

static void answer_page(struct client *c, const struct page *page)
{
    struct buf body CLEANUP(buf_done);
    buf_init(&body, PAGE_MAX);
    int status = page->print(c->admin, &body);
    if (body.overflow)
        answer_text(c, 500);
    else
        answer(c, status, page->type, &body);
}

/* "GET /path?query HTTP/1.1"; line ends in NUL. */
static void serve_line(struct client *c, char *line)
{
    char *rest = NULL;
    const char *method = strtok_r(line, " ", &rest);
    char *target = strtok_r(NULL, " ", &rest);
    const char *version = strtok_r(NULL, " ", &rest);
    if (!version || strncmp(version, "HTTP/1.", 7) != 0 || *rest) {
        answer_text(c, 400);
        return;
    }
    if (strcmp(method, "GET") != 0) {
        answer_text(c, 405);
        return;
    }
    target[strcspn(target, "?")] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
        if (strcmp(target, pages[i].path) == 0) {
            answer_page(c, &pages[i]);
            return;
        }
    }
    answer_text(c, 404);
}

static void read_on(struct client *c)
{
    ssize_t n = recv(c->fd, c->request + c->request_len, REQUEST_MAX - c->request_len, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        client_free(c);
        return;
    }
    c->request_len += (size_t)n;
    c->request[c->request_len] = '\0';
    if (strstr(c->request, "\r\n\r\n")) {
        *strstr(c->request, "\r\n") = '\0';
        serve_line(c, c->request);
    } else if (c->request_len == REQUEST_MAX) {
        answer_text(c, 431);
    } else if (strlen(c->request) != c->request_len) {
        answer_text(c, 400);
    }
}

static void discard(struct client *c)
{
    char bytes[4096];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        client_free(c);
}

static void on_client(void *arg, bool readable, bool writable)
{
    struct client *c = arg;
    (void)readable;
    (void)writable;
    switch (c->state) {
    case READING:
        read_on(c);
        break;
    case WRITING:
        write_on(c);
        break;
    case LINGERING:
        discard(c);
        break;
    }
}

static void client_new(struct admin *a, int fd)
{
    struct client *c = xcalloc(1, sizeof *c);
    c->admin = a;
    c->fd = fd;
    buf_init(&c->reply, PAGE_MAX + 1000);
    c->watch = watch_new(a->loop, fd, on_client, c);
    watch_set(c->watch, true, false);
    c->deadline = timer_new(a->loop, on_deadline, c);
    timer_arm(c->deadline, loop_now_ns() + READ_NS);
    TAILQ_INSERT_TAIL(&a->clients, c, link);
    a->n_clients++;
}

/* ---- listening ---- */

static void on_again(void *arg)
{
    struct admin *a = arg;
    watch_set(a->watch, true, false);
}

/* Who only sits there must not keep a probe out: the oldest that is not being answered gives way.
 */
static bool make_room(struct admin *a)
{
    struct client *c;
    TAILQ_FOREACH(c, &a->clients, link)
    {
        if (c->state != WRITING)
            break;
    }
    if (a->n_clients == CLIENTS_MAX && c)
        client_free(c);
    return a->n_clients < CLIENTS_MAX;
}

static void on_connection(void *arg, bool readable, bool writable)
{
    struct admin *a = arg;
    (void)readable;
    (void)writable;
    if (!make_room(a)) {
        watch_set(a->watch, false, false);
        return;
    }
    int fd = accept4(a->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        client_new(a, fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        watch_set(a->watch, false, false); /* the connection stays there: this would spin */
        timer_arm(a->again, loop_now_ns() + ACCEPT_AGAIN_NS);
    }
}

/* "host:port", "[v6]:port". NULL, and the reason: it is none, or it cannot be found. */
static struct addrinfo *resolve(const char *listen_at, bool passive, const char **why)
{
    const char *colon = strrchr(listen_at, ':');
    *why = "it is not host:port";
    if (!colon || !colon[1])
        return NULL;
    size_t len = (size_t)(colon - listen_at);
    bool brackets = len >= 2 && listen_at[0] == '[' && colon[-1] == ']';
    char *host = xmemdup0(listen_at + brackets, len - 2 * brackets);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host[0] ? host : NULL, colon + 1, &hints, &found);
    *why = rc ? gai_strerror(rc) : NULL;
    free(host);
    return rc ? NULL : found;
}

static int listen_on(const struct addrinfo *at)
{
    int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, CLIENTS_MAX) == 0)
        return fd;
    int error = errno;
    close(fd);
    return -error;
}

static int open_listener(const char *listen_at)
{
    const char *why;
    struct addrinfo *at = resolve(listen_at, true, &why);
    int fd = at ? listen_on(at) : -EINVAL;
    if (at)
        freeaddrinfo(at);
    if (fd < 0)
        log_error(NULL, "cannot listen for the admin port", L_STR("listen", listen_at),
                  L_STR("error", why ? why : strerror(-fd)),
                  L_STR("advice", "set admin.listen to a free address, or to \"\" for none"));
    return fd;
}

int admin_new(struct loop *l, const char *listen_at, const struct admin_pages *p,
              struct admin **out)
{
    int fd = open_listener(listen_at);
    if (fd < 0)
        return fd;
    struct admin *a = xcalloc(1, sizeof *a);
    a->loop = l;
    a->pages = *p;
    a->fd = fd;
    TAILQ_INIT(&a->clients);
    a->again = timer_new(l, on_again, a);
    a->watch = watch_new(l, fd, on_connection, a);
    watch_set(a->watch, true, false);
    *out = a;
    return 0;
}

void admin_free(struct admin *a)
{
    if (!a)
        return;
    while (!TAILQ_EMPTY(&a->clients))
        client_free(TAILQ_FIRST(&a->clients));
    watch_free(a->watch);
    timer_free(a->again);
    close(a->fd);
    free(a);
}

/* ---- --healthcheck ---- */

static int wait_for(int fd, short events, uint64_t until_ns)
{
    uint64_t now = loop_now_ns();
    struct pollfd p = {.fd = fd, .events = events};
    int n = now < until_ns ? poll(&p, 1, (int)((until_ns - now) / NS_PER_MS) + 1) : 0;
    if (n < 0)
        return -errno;
    return n ? 0 : -ETIMEDOUT;
}

/* The first bytes of the answer into head. */
static int ask_health(int fd, const struct addrinfo *at, char *head, size_t size)
{
    static const char request[] = "GET /healthz HTTP/1.0\r\n\r\n";
    uint64_t until = loop_now_ns() + HEALTH_NS;
    if (connect(fd, at->ai_addr, at->ai_addrlen) != 0 && errno != EINPROGRESS)
        return -errno;
    int rc = wait_for(fd, POLLOUT, until);
    if (rc == 0 && send(fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0)
        rc = -errno;
    size_t len = 0;
    while (rc == 0 && len < size) {
        rc = wait_for(fd, POLLIN, until);
        ssize_t n = rc ? 0 : recv(fd, head + len, size - len, 0);
        if (rc == 0 && n <= 0)
            rc = n ? -errno : -ECONNRESET;
        else
            len += (size_t)n;
    }
    return rc;
}

int admin_healthcheck(const char *listen_at)
{
    const char *why;
    struct addrinfo *at = resolve(listen_at, false, &why);
    if (!at)
        return -EINVAL;
    char head[12]; /* "HTTP/1.1 200" */
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 ? -errno : ask_health(fd, at, head, sizeof head);
    if (fd >= 0)
        close(fd);
    freeaddrinfo(at);
    if (rc)
        return rc;
    return memcmp(head, "HTTP/1.", 7) == 0 && memcmp(head + 8, " 200", 4) == 0 ? 0 : 1;
}
