/* notify: see the header.
 *
 * The protocol is one datagram of NAME=VALUE lines to a Unix socket, documented as stable in
 * sd_notify(3), which itself recommends to speak it without libsystemd where that is all one needs:
 * linking that library brings decompressors and a cipher suite into a process that holds secrets.
 *
 * Everything is sent from a timer of the loop, so that WATCHDOG=1 says what it is meant to say: the
 * loop turns. It never waits: a datagram that the manager has no room for is sent again with the
 * next look. A status is told at most once a second, readiness and the end at once.
 *
 * Invariant: READY=1 went out at most once, and never after STOPPING=1. */
#include "worker/io/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "common/xalloc.h"

#define EAGER_NS (NS_PER_S / 5) /* between looks until it is ready */
#define CALM_NS NS_PER_S
#define STATUS_MAX 300

struct notify {
    struct notify_source source;
    struct timer *timer; /* owned */
    int fd;
    struct sockaddr_un to;
    socklen_t to_len;
    uint64_t watchdog_ns;           /* the manager's patience; 0: it does not watch */
    uint64_t alive_ns, status_ns;   /* when these were told last */
    bool ready, stopping;           /* told */
    bool ends;                      /* notify_stopping was called */
    struct buf status, told, lines; /* now; as the manager knows it; what is sent next */
};

static uint64_t period(const struct notify *n)
{
    uint64_t usual = n->ready ? CALM_NS : EAGER_NS;
    return n->watchdog_ns ? MIN(usual, n->watchdog_ns / 4) : usual;
}

static bool send_lines(struct notify *n)
{
    const struct sockaddr *to = (const struct sockaddr *)&n->to;
    ssize_t sent = sendto(n->fd, buf_text(&n->lines), n->lines.len, MSG_NOSIGNAL, to, n->to_len);
    if (sent < 0)
        log_debug(NULL, "the service manager does not listen", L_STR("error", strerror(errno)));
    return sent >= 0;
}

static bool status_differs(const struct notify *n)
{
    return strcmp(buf_text(&n->status), buf_text(&n->told)) != 0;
}

/* Sends what is due; what cannot be sent stays due. */
static void tell(struct notify *n, bool ready)
{
    uint64_t now = loop_now_ns();
    bool becomes_ready = ready && !n->ready && !n->ends;
    bool stopping = n->ends && !n->stopping;
    bool alive = n->watchdog_ns && now - n->alive_ns >= n->watchdog_ns / 4;
    bool changed = status_differs(n) &&
                   (!n->status_ns || now - n->status_ns >= CALM_NS || becomes_ready || stopping);
    buf_clear(&n->lines);
    if (becomes_ready)
        buf_adds(&n->lines, "READY=1\n");
    if (stopping)
        buf_adds(&n->lines, "STOPPING=1\n");
    if (alive)
        buf_adds(&n->lines, "WATCHDOG=1\n");
    if (changed)
        buf_addf(&n->lines, "STATUS=%s\n", buf_text(&n->status));
    if (!n->lines.len || !send_lines(n))
        return;
    n->ready = n->ready || becomes_ready;
    n->stopping = n->stopping || stopping;
    n->alive_ns = alive ? now : n->alive_ns;
    if (!changed)
        return;
    n->status_ns = now;
    buf_clear(&n->told);
    buf_adds(&n->told, buf_text(&n->status));
}

static bool look(struct notify *n)
{
    buf_clear(&n->status);
    return n->source.look(n->source.arg, &n->status);
}

static void on_timer(void *arg)
{
    struct notify *n = arg;
    tell(n, look(n));
    timer_arm(n->timer, loop_now_ns() + period(n));
}

void notify_stopping(struct notify *n)
{
    if (!n)
        return;
    n->ends = true;
    tell(n, look(n));
}

/* ---- life ---- */

/* "/path" or "@abstract"; anything else is no address that we can reach. */
static bool take_address(struct notify *n, const char *text)
{
    size_t len = strlen(text);
    n->to.sun_family = AF_UNIX;
    if ((*text != '/' && *text != '@') || len < 2 || len >= sizeof n->to.sun_path)
        return false;
    memcpy(n->to.sun_path, text, len);
    if (*text == '@')
        n->to.sun_path[0] = '\0';
    n->to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    return true;
}

/* WATCHDOG_PID, where it is given, says who is watched. */
static uint64_t watchdog_ns(void)
{
    const char *patience = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    int64_t us = 0, who = getpid();
    if (!patience || !parse_i64(patience, strlen(patience), 1, INT64_MAX / 1000, &us))
        return 0;
    if (pid && (!parse_i64(pid, strlen(pid), 1, INT32_MAX, &who) || who != getpid()))
        return 0;
    return (uint64_t)us * (NS_PER_MS / 1000);
}

static void forget_environment(void)
{
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

struct notify *notify_new(struct loop *loop, const struct notify_source *source)
{
    const char *address = getenv("NOTIFY_SOCKET");
    if (!address || !*address)
        return NULL;
    struct notify *n = xcalloc(1, sizeof *n);
    n->source = *source;
    n->watchdog_ns = watchdog_ns();
    n->fd = take_address(n, address) ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
                                     : -1;
    if (n->fd < 0)
        log_warn(NULL, "the service manager cannot be told anything", L_STR("socket", address));
    forget_environment();
    if (n->fd < 0) {
        free(n);
        return NULL;
    }
    buf_init(&n->status, STATUS_MAX);
    buf_init(&n->told, STATUS_MAX);
    buf_init(&n->lines, 2 * STATUS_MAX);
    n->timer = timer_new(loop, on_timer, n);
    timer_arm(n->timer, 0);
    return n;
}

void notify_free(struct notify *n)
{
    if (!n)
        return;
    timer_free(n->timer);
    close(n->fd);
    buf_done(&n->status);
    buf_done(&n->told);
    buf_done(&n->lines);
    free(n);
}
