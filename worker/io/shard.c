/* shard: libcurl's multi_socket interface on the loop.
 *
 * libcurl asks for one timer per multi handle and moves it at nearly every step, mostly to later.
 * So the loop's timer is left alone when the new time is later than the one it has: it then fires
 * in vain once in a while, which is cheaper than moving it every time.
 *
 * Adding a transfer makes libcurl ask for a call "now". A batch of them is started by one such
 * call, shard_kick, instead of one loop turn each.
 *
 * Invariant: nothing of http.c runs while libcurl is on the stack. */
#include "worker/io/shard.h"

#include <stdlib.h>

#include "common/xalloc.h"

#define HOST_CONNECTIONS (SHARD_TRANSFERS * 3 / 2) /* HTTP/2 needs one, HTTP/1 one a transfer */
#define HTTP2_STREAMS 100

struct shard {
    struct loop *loop; /* borrowed */
    CURLM *multi;
    void (*done)(struct transfer *, CURLcode);
    size_t load;
    struct timer *timer;
    uint64_t armed_ns; /* when the timer fires */
    uint64_t due_ns;   /* when libcurl wants to be called; 0: now */
    bool to_kick;      /* shard_kick will do what libcurl wants done now */
};

struct socket_watch {
    struct shard *shard;
    struct watch *watch;
    curl_socket_t fd;
};

static void reap(struct shard *s)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(s->multi, &left))) {
        if (m->msg != CURLMSG_DONE)
            continue;
        CURLcode code = m->data.result;
        char *t = NULL;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t);
        shard_remove((struct transfer *)(void *)t);
        s->done((struct transfer *)(void *)t, code);
    }
}

static void act(struct shard *s, curl_socket_t fd, int mask)
{
    int running;
    ASSERT(curl_multi_socket_action(s->multi, fd, mask, &running) == CURLM_OK);
    reap(s);
}

static void act_on_time(struct shard *s)
{
    s->due_ns = NEVER; /* libcurl says nothing when it wants no further call */
    act(s, CURL_SOCKET_TIMEOUT, 0);
}

static void arm(struct shard *s)
{
    if (s->due_ns >= s->armed_ns)
        return;
    s->armed_ns = s->due_ns;
    timer_arm(s->timer, s->due_ns);
}

static void on_timer(void *arg)
{
    struct shard *s = arg;
    s->armed_ns = NEVER;
    if (s->due_ns <= loop_now_ns())
        act_on_time(s);
    else
        arm(s);
}

static int want_time(CURLM *multi, long ms, void *arg)
{
    struct shard *s = arg;
    (void)multi;
    if (ms < 0)
        s->due_ns = NEVER;
    else
        s->due_ns = ms ? loop_now_ns() + (uint64_t)ms * NS_PER_MS : 0;
    if (!s->to_kick || s->due_ns != 0)
        arm(s);
    return 0;
}

static void on_ready(void *arg, bool readable, bool writable)
{
    struct socket_watch *w = arg; /* may be gone when act() returns */
    act(w->shard, w->fd, (readable ? CURL_CSELECT_IN : 0) | (writable ? CURL_CSELECT_OUT : 0));
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *of_socket)
{
    struct shard *s = arg;
    struct socket_watch *w = of_socket;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (w)
            watch_free(w->watch);
        free(w);
        return 0;
    }
    if (!w) {
        w = xmalloc(sizeof *w);
        *w = (struct socket_watch){s, watch_new(s->loop, fd, on_ready, w), fd};
        curl_multi_assign(s->multi, fd, w);
    }
    watch_set(w->watch, what & CURL_POLL_IN, what & CURL_POLL_OUT);
    return 0;
}

static void set(CURLM *multi, CURLMoption option, long value)
{
    ASSERT(curl_multi_setopt(multi, option, value) == CURLM_OK);
}

struct shard *shard_new(struct loop *l, long max_idle, void (*done)(struct transfer *, CURLcode))
{
    struct shard *s = xcalloc(1, sizeof *s);
    *s = (struct shard){.loop = l, .done = done, .armed_ns = NEVER, .due_ns = NEVER};
    s->timer = timer_new(l, on_timer, s);
    s->multi = curl_multi_init();
    ASSERT(s->multi);
    set(s->multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    set(s->multi, CURLMOPT_MAX_CONCURRENT_STREAMS, HTTP2_STREAMS);
    set(s->multi, CURLMOPT_MAX_HOST_CONNECTIONS, HOST_CONNECTIONS);
    set(s->multi, CURLMOPT_MAXCONNECTS, max_idle);
    curl_multi_setopt(s->multi, CURLMOPT_SOCKETDATA, s);
    curl_multi_setopt(s->multi, CURLMOPT_TIMERDATA, s);
    curl_multi_setopt(s->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
    curl_multi_setopt(s->multi, CURLMOPT_TIMERFUNCTION, want_time);
    return s;
}

void shard_free(struct shard *s)
{
    if (!s)
        return;
    ASSERT(s->load == 0);
    curl_multi_cleanup(s->multi);
    timer_free(s->timer);
    free(s);
}

void shard_add(struct shard *s, struct transfer *t)
{
    ASSERT(!t->shard);
    t->shard = s;
    s->load++;
    s->to_kick = true;
    ASSERT(curl_multi_add_handle(s->multi, t->easy) == CURLM_OK);
}

void shard_kick(struct shard *s)
{
    if (!s->to_kick)
        return;
    s->to_kick = false;
    act_on_time(s);
}

void shard_remove(struct transfer *t)
{
    struct shard *s = t->shard;
    ASSERT(s && s->load > 0);
    ASSERT(curl_multi_remove_handle(s->multi, t->easy) == CURLM_OK);
    t->shard = NULL;
    s->load--;
}

size_t shard_load(const struct shard *s)
{
    return s ? s->load : 0;
}
