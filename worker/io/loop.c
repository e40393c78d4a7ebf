/* loop: libevent with four kinds of handle, and a hook at the end of each turn.
 *
 * A turn is one event_base_loop(EVLOOP_ONCE): wait, run every callback that is due, then the hooks.
 * So a hook sees a quiet world: no callback of ours is on the stack, and what died in this turn can
 * be freed there.
 *
 * Times are read anew instead of cached by libevent, and intervals are rounded up: a timer never
 * fires before its time, however long the callbacks before it took. With the precise timer the
 * kernel wakes us to the microsecond, not to the next millisecond.
 *
 * The change list saves system calls: a descriptor whose interest goes from write to read and back
 * within a turn costs one epoll_ctl or none. It asks that no descriptor watched here be a dup() of
 * another one. A descriptor may be closed once its watch is gone.
 *
 * Invariant: every timer, watch and wake is freed before the loop. */
#include "worker/io/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/xalloc.h"

#define HOOKS_MAX 8
#define SIGNALS_MAX 8

struct hook {
    void (*fn)(void *arg);
    void *arg;
};

struct signal_hook {
    struct event event;
    void (*fn)(void *arg, int signo);
    void *arg;
};

struct loop {
    struct event_base *base;
    bool stopping;
    struct hook hooks[HOOKS_MAX];
    size_t n_hooks;
    struct signal_hook signals[SIGNALS_MAX];
    size_t n_signals;
    size_t n_handles; /* timers, watches and wakes alive */
};

struct timer {
    struct event event;
    struct loop *loop;
    void (*fn)(void *arg);
    void *arg;
};

struct watch {
    struct event event;
    struct loop *loop;
    int fd;
    short interest; /* EV_READ | EV_WRITE now asked for */
    void (*fn)(void *arg, bool readable, bool writable);
    void *arg;
};

struct wake {
    struct watch *watch;
    int fd;
    void (*fn)(void *arg);
    void *arg;
};

struct loop *loop_new(void)
{
    struct event_config *config = event_config_new();
    ASSERT(config);
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_NO_CACHE_TIME |
                                      EVENT_BASE_FLAG_PRECISE_TIMER |
                                      EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    struct loop *l = xcalloc(1, sizeof *l);
    l->base = event_base_new_with_config(config);
    event_config_free(config);
    ASSERT(l->base);
    return l;
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    ASSERT(l->n_handles == 0);
    for (size_t i = 0; i < l->n_signals; i++)
        event_del(&l->signals[i].event);
    event_base_free(l->base);
    free(l);
}

void loop_run(struct loop *l)
{
    while (!l->stopping) {
        ASSERT(event_base_loop(l->base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY) >= 0);
        for (size_t i = 0; i < l->n_hooks; i++)
            l->hooks[i].fn(l->hooks[i].arg);
    }
    l->stopping = false;
}

void loop_stop(struct loop *l)
{
    l->stopping = true;
}

struct event_base *loop_base(struct loop *l)
{
    return l->base;
}

/* ---- clocks ---- */

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    ASSERT(clock_gettime(id, &t) == 0);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t loop_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t loop_boot_ns(void)
{
    return clock_ns(CLOCK_BOOTTIME);
}

uint64_t loop_wall_ms(void)
{
    return clock_ns(CLOCK_REALTIME) / NS_PER_MS;
}

/* ---- timers ---- */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct timer *t = arg;
    (void)fd;
    (void)what;
    t->fn(t->arg);
}

struct timer *timer_new(struct loop *l, void (*fn)(void *arg), void *arg)
{
    struct timer *t = xmalloc(sizeof *t);
    *t = (struct timer){.loop = l, .fn = fn, .arg = arg};
    ASSERT(evtimer_assign(&t->event, l->base, on_timer, t) == 0);
    l->n_handles++;
    return t;
}

void timer_free(struct timer *t)
{
    if (!t)
        return;
    evtimer_del(&t->event);
    t->loop->n_handles--;
    free(t);
}

void timer_arm(struct timer *t, uint64_t at_ns)
{
    if (at_ns == NEVER) {
        evtimer_del(&t->event);
        return;
    }
    uint64_t now = loop_now_ns();
    uint64_t us = at_ns > now ? (at_ns - now + 999) / 1000 : 0;
    struct timeval in = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};
    ASSERT(evtimer_add(&t->event, &in) == 0);
}

/* ---- descriptors ---- */

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
    struct watch *w = arg;
    (void)fd;
    w->fn(w->arg, what & EV_READ, what & EV_WRITE);
}

struct watch *watch_new(struct loop *l, int fd, void (*fn)(void *arg, bool readable, bool writable),
                        void *arg)
{
    ASSERT(fd >= 0);
    struct watch *w = xmalloc(sizeof *w);
    *w = (struct watch){.loop = l, .fd = fd, .fn = fn, .arg = arg};
    l->n_handles++;
    return w;
}

void watch_set(struct watch *w, bool read, bool write)
{
    short interest = (short)((read ? EV_READ : 0) | (write ? EV_WRITE : 0));
    if (interest == w->interest)
        return;
    if (w->interest)
        event_del(&w->event);
    w->interest = interest;
    if (!interest)
        return;
    short what = (short)(interest | EV_PERSIST);
    ASSERT(event_assign(&w->event, w->loop->base, w->fd, what, on_watch, w) == 0);
    ASSERT(event_add(&w->event, NULL) == 0);
}

void watch_free(struct watch *w)
{
    if (!w)
        return;
    if (w->interest)
        event_del(&w->event);
    w->loop->n_handles--;
    free(w);
}

/* ---- wake-ups from other threads ---- */

static void on_wake(void *arg, bool readable, bool writable)
{
    struct wake *w = arg;
    (void)readable;
    (void)writable;
    eventfd_t count;
    if (eventfd_read(w->fd, &count) == 0)
        w->fn(w->arg);
}

struct wake *wake_new(struct loop *l, void (*fn)(void *arg), void *arg)
{
    struct wake *w = xmalloc(sizeof *w);
    *w = (struct wake){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .fn = fn, .arg = arg};
    ASSERT(w->fd >= 0);
    w->watch = watch_new(l, w->fd, on_wake, w);
    watch_set(w->watch, true, false);
    return w;
}

int wake_fd(const struct wake *w)
{
    return w->fd;
}

void wake_send(struct wake *w)
{
    /* EAGAIN: the counter is full, so the loop has been told. */
    ASSERT(eventfd_write(w->fd, 1) == 0 || errno == EAGAIN);
}

void wake_free(struct wake *w)
{
    if (!w)
        return;
    watch_free(w->watch);
    close(w->fd);
    free(w);
}

/* ---- signals and hooks ---- */

static void on_signal(evutil_socket_t signo, short what, void *arg)
{
    struct signal_hook *s = arg;
    (void)what;
    s->fn(s->arg, signo);
}

void loop_signal(struct loop *l, int signo, void (*fn)(void *arg, int signo), void *arg)
{
    ASSERT(l->n_signals < SIGNALS_MAX);
    struct signal_hook *s = &l->signals[l->n_signals++];
    s->fn = fn;
    s->arg = arg;
    ASSERT(evsignal_assign(&s->event, l->base, signo, on_signal, s) == 0);
    ASSERT(evsignal_add(&s->event, NULL) == 0);
}

void loop_each_turn(struct loop *l, void (*fn)(void *arg), void *arg)
{
    ASSERT(l->n_hooks < HOOKS_MAX);
    l->hooks[l->n_hooks++] = (struct hook){.fn = fn, .arg = arg};
}

void loop_no_more_turns(struct loop *l, void (*fn)(void *arg), void *arg)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->n_hooks; i++) {
        if (l->hooks[i].fn != fn || l->hooks[i].arg != arg)
            l->hooks[kept++] = l->hooks[i];
    }
    l->n_hooks = kept;
}
