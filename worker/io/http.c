/* http: the life of a call, from http_send to its reply.
 *
 *   http_send -> waiting -> (a shard of libcurl) -> ended -> reply -> dead -> idle
 *
 * A transfer is on exactly one of these lists. Everything that reaches the user reaches him from
 * end_of_turn(), when neither libcurl nor a callback of the loop is on the stack: so he may send
 * and cancel in there as he likes, and what he was lent stays valid until the hook is through.
 *
 * Deadlines are ours, not libcurl's: a transfer that libcurl queues does not time out in it. They
 * run from http_send on, so a call that waits here for room is answered in time as well.
 *
 * Routing. A sandbox's own host always goes to the same shard, so that the connection of the last
 * probe is found again. API calls go to the first shard with room: packed like this, a connection
 * that has just become free is nearly always there to be used again.
 *
 * A loop turn starts at most max_connects calls: thousands of TLS handshakes in one turn would hold
 * it for seconds. */
#include "worker/io/http.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/xalloc.h"
#include "worker/io/connect_to.h"
#include "worker/io/files.h"
#include "worker/io/shard.h"
#include "worker/io/transfer.h"

#define IDLE_MIN 256 /* handles kept for later, beside as many as are in use */

enum place {
    WAITING,            /* + own_host */
    IDLE = WAITING + 2, /* + own_host */
    ACTIVE = IDLE + 2,
    ENDED,
    DEAD,
    N_PLACES
};

struct http {
    struct loop *loop; /* borrowed */
    http_reply_fn *fn;
    void *arg;
    unsigned max_in_flight, max_connects;
    struct transfer_setup setup;
    char *user_agent, *ca_file;
    struct connect_to *connect_to; /* owned; NULL: none */
    X509_STORE *trusted;           /* NULL until first used */
    struct transfer *by_id;        /* uthash: waiting, in a shard, or ended */
    struct transfer_list lists[N_PLACES];
    struct resolving resolving[2]; /* by own_host */
    struct transfer_list grown;    /* streams with news; linked by `growth` */
    size_t n_active, n_idle;
    struct shard **shards; /* NULL until first used */
    size_t n_shards;
    long max_idle;      /* connections a shard keeps */
    struct timer *turn; /* makes a turn happen when a send came outside of one */
    bool turn_armed;
    struct timer *room; /* and when a look-up that was given up is over */
    uint64_t room_ns;
};

static void move(struct transfer *t, struct transfer_list *to)
{
    if (t->list)
        TAILQ_REMOVE(t->list, t, link);
    t->list = to;
    TAILQ_INSERT_TAIL(to, t, link);
}

static void want_turn(struct http *h)
{
    if (h->turn_armed)
        return;
    h->turn_armed = true;
    timer_arm(h->turn, 0);
}

/* ---- the ends of a call ---- */

static void leave_shard(struct transfer *t)
{
    if (!t->shard)
        return;
    shard_remove(t);
    t->http->n_active--;
}

static void stop_growing(struct transfer *t)
{
    if (t->grown)
        TAILQ_REMOVE(&t->http->grown, t, growth);
    t->grown = false;
}

/* Its fate is known; the reply follows at the end of the turn. */
static void end(struct transfer *t)
{
    stop_growing(t);
    timer_arm(t->deadline, NEVER);
    move(t, &t->http->lists[ENDED]);
    want_turn(t->http);
}

static void end_with(struct transfer *t, enum fault fault, const char *text)
{
    leave_shard(t);
    t->fault = fault;
    t->fault_text = text;
    end(t);
}

static void on_done(struct transfer *t, CURLcode code)
{
    t->http->n_active--;
    transfer_judge(t, code);
    end(t);
}

static void on_deadline(void *arg)
{
    struct transfer *t = arg;
    if (t->shard && transfer_was_sent(t))
        end_with(t, FAULT_TIMEOUT, "no whole answer in time");
    else
        end_with(t, FAULT_CONNECT, "not sent in time");
}

static void on_growth(struct transfer *t)
{
    if (t->grown)
        return;
    t->grown = true;
    TAILQ_INSERT_TAIL(&t->http->grown, t, growth);
    want_turn(t->http);
}

/* ---- sending ---- */

/* FNV-1a of the URL's host. */
static uint64_t host_hash(const char *url)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t n = strcspn(host, "/:?#"); n > 0; n--)
        hash = (hash ^ (unsigned char)*host++) * UINT64_C(0x100000001b3);
    return hash;
}

static size_t shard_for_api(const struct http *h)
{
    size_t best = 0;
    for (size_t i = 0; i < h->n_shards; i++) {
        if (shard_load(h->shards[i]) < SHARD_TRANSFERS)
            return i;
        if (shard_load(h->shards[i]) < shard_load(h->shards[best]))
            best = i;
    }
    return best;
}

static void start(struct http *h, struct transfer *t)
{
    size_t i = t->own_host ? host_hash(t->call.url) % h->n_shards : shard_for_api(h);
    if (!h->shards[i])
        h->shards[i] = shard_new(h->loop, h->max_idle, on_done);
    move(t, &h->lists[ACTIVE]);
    h->n_active++;
    shard_add(h->shards[i], t);
}

static bool may_start(struct http *h, bool own_host)
{
    return !TAILQ_EMPTY(&h->lists[WAITING + own_host]) && h->n_active < h->max_in_flight &&
           resolving_room(&h->resolving[own_host], loop_now_ns());
}

static bool any_may_start(struct http *h)
{
    return may_start(h, false) || may_start(h, true);
}

/* The API and the sandboxes by turns, so that neither waits for the other's name server. */
static void start_waiting(struct http *h)
{
    if (!any_may_start(h))
        return;
    for (unsigned n = 0; n < h->max_connects && any_may_start(h); n++) {
        bool own_host = n % 2 ? may_start(h, true) : !may_start(h, false);
        start(h, TAILQ_FIRST(&h->lists[WAITING + own_host]));
    }
    for (size_t i = 0; i < h->n_shards; i++) {
        if (h->shards[i])
            shard_kick(h->shards[i]);
    }
}

static struct transfer *idle_transfer(struct http *h, bool own_host)
{
    struct transfer *t =
        TAILQ_LAST(&h->lists[IDLE + own_host], transfer_list); /* warm in the cache */
    if (t) {
        h->n_idle--;
        return t;
    }
    t = transfer_new(&h->setup, own_host);
    t->http = h;
    t->deadline = timer_new(h->loop, on_deadline, t);
    return t;
}

void http_send(struct http *h, uint64_t id, struct call *call)
{
    struct transfer *t;
    HASH_FIND(by_id, h->by_id, &id, sizeof id, t);
    ASSERT(!t);
    t = idle_transfer(h, call->own_host);
    t->id = id;
    HASH_ADD(by_id, h->by_id, id, sizeof t->id, t);
    if (!transfer_begin(t, call)) {
        end(t);
        return;
    }
    move(t, &h->lists[WAITING + t->own_host]);
    timer_arm(t->deadline, loop_now_ns() + t->call.timeout_ms * NS_PER_MS);
    want_turn(h);
}

void http_cancel(struct http *h, uint64_t id)
{
    struct transfer *t;
    HASH_FIND(by_id, h->by_id, &id, sizeof id, t);
    if (!t)
        return;
    HASH_DELETE(by_id, h->by_id, t);
    leave_shard(t);
    stop_growing(t);
    timer_arm(t->deadline, NEVER);
    move(t, &h->lists[DEAD]);
    want_turn(h);
}

static void drop_unsent_of(struct transfer_list *list)
{
    for (struct transfer *t = TAILQ_FIRST(list), *next; t; t = next) {
        next = TAILQ_NEXT(t, link);
        if (!t->shard || !transfer_was_sent(t))
            end_with(t, FAULT_CONNECT, "dropped before it was sent");
    }
}

void http_drop_unsent(struct http *h)
{
    drop_unsent_of(&h->lists[WAITING]);
    drop_unsent_of(&h->lists[WAITING + 1]);
    drop_unsent_of(&h->lists[ACTIVE]);
}

size_t http_in_flight(const struct http *h)
{
    return HASH_CNT(by_id, h->by_id);
}

/* ---- the end of a turn ---- */

static void tell(struct http *h, struct transfer *t, bool more)
{
    struct reply_header headers[REPLY_HEADERS_MAX];
    struct reply reply;
    transfer_reply(t, &reply, headers);
    reply.more = more;
    h->fn(h->arg, t->id, &reply);
}

static void tell_growth(struct http *h)
{
    struct transfer *t;
    while ((t = TAILQ_FIRST(&h->grown))) {
        stop_growing(t);
        tell(h, t, true);
    }
}

/* What ends while we tell is told in the next turn: a user who answers each refusal with the same
 * call must not hold the loop. */
static void tell_ended(struct http *h)
{
    struct transfer_list now = TAILQ_HEAD_INITIALIZER(now);
    while (!TAILQ_EMPTY(&h->lists[ENDED]))
        move(TAILQ_FIRST(&h->lists[ENDED]), &now);
    struct transfer *t;
    while ((t = TAILQ_FIRST(&now))) {
        HASH_DELETE(by_id, h->by_id, t);
        move(t, &h->lists[DEAD]);
        tell(h, t, false);
    }
}

static void drop_transfer(struct transfer *t)
{
    TAILQ_REMOVE(t->list, t, link);
    timer_free(t->deadline);
    transfer_free(t);
}

static void bury(struct http *h)
{
    struct transfer *t;
    while ((t = TAILQ_FIRST(&h->lists[DEAD]))) {
        if (h->n_idle > h->n_active + IDLE_MIN) {
            drop_transfer(t);
            continue;
        }
        transfer_clear(t);
        move(t, &h->lists[IDLE + t->own_host]);
        h->n_idle++;
    }
}

static void watch_room(struct http *h)
{
    uint64_t next = MIN(resolving_next(&h->resolving[0]), resolving_next(&h->resolving[1]));
    if (next != h->room_ns)
        timer_arm(h->room, next);
    h->room_ns = next;
}

static void end_of_turn(void *arg)
{
    struct http *h = arg;
    if (h->turn_armed)
        timer_arm(h->turn, NEVER);
    h->turn_armed = false;
    tell_growth(h);
    tell_ended(h);
    bury(h);
    start_waiting(h);
    if (any_may_start(h) || !TAILQ_EMPTY(&h->lists[ENDED]))
        want_turn(h);
    watch_room(h);
}

static void on_turn(void *arg)
{
    (void)arg; /* end_of_turn follows */
}

/* ---- life ---- */

/* A megabyte and 50 ms, so: once for all shards, and not before TLS is spoken. */
static X509_STORE *trusted(struct transfer *t)
{
    struct http *h = t->http;
    if (h->trusted)
        return h->trusted;
    const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);
    const char *bundle = h->ca_file ? h->ca_file : v->cainfo;
    const char *folder = h->ca_file ? NULL : v->capath;
    h->trusted = X509_STORE_new();
    ASSERT(h->trusted);
    if ((bundle || folder) && !X509_STORE_load_locations(h->trusted, bundle, folder))
        log_error(NULL, "cannot read the trusted certificates: every TLS connection will fail",
                  L_STR("file", bundle));
    return h->trusted;
}

/* One for each transfer and half as many for sandboxes that will be asked again, as far as our file
 * descriptors go. Not 0, which libcurl takes for "as you like". */
static long idle_per_shard(size_t n_shards)
{
    size_t share = files_for_calls(files_limit(), UINT_MAX) / n_shards;
    return (long)MAX(MIN(share, SHARD_TRANSFERS * 3 / 2), 1);
}

struct http *http_new(struct loop *l, const struct http_options *o, http_reply_fn *fn, void *arg)
{
    ASSERT(o->max_in_flight > 0 && o->max_connects > 0);
    ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    struct http *h = xcalloc(1, sizeof *h);
    *h = (struct http){.loop = l, .fn = fn, .arg = arg};
    h->max_in_flight = o->max_in_flight;
    h->max_connects = o->max_connects;
    h->user_agent = xstrdup0(o->user_agent);
    h->ca_file = xstrdup0(o->ca_file);
    h->connect_to = connect_to_new(o->connect_to, o->n_connect_to);
    h->setup = (struct transfer_setup){.allow_http = o->allow_http,
                                       .user_agent = h->user_agent,
                                       .connect_to = h->connect_to,
                                       .trusted = trusted,
                                       .shared = curl_share_init(),
                                       .grew = on_growth,
                                       .resolving = h->resolving};
    ASSERT(h->setup.shared);
    curl_share_setopt(h->setup.shared, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    TAILQ_INIT(&h->grown);
    for (size_t i = 0; i < N_PLACES; i++)
        TAILQ_INIT(&h->lists[i]);
    h->n_shards = (o->max_in_flight + SHARD_TRANSFERS - 1) / SHARD_TRANSFERS;
    h->shards = xcalloc(h->n_shards, sizeof *h->shards);
    h->max_idle = idle_per_shard(h->n_shards);
    h->turn = timer_new(l, on_turn, NULL);
    h->room = timer_new(l, on_turn, NULL);
    h->room_ns = NEVER;
    loop_each_turn(l, end_of_turn, h);
    return h;
}

static void drop_all(struct transfer_list *list)
{
    while (!TAILQ_EMPTY(list)) {
        leave_shard(TAILQ_FIRST(list));
        drop_transfer(TAILQ_FIRST(list));
    }
}

void http_free(struct http *h)
{
    if (!h)
        return;
    loop_no_more_turns(h->loop, end_of_turn, h);
    HASH_CLEAR(by_id, h->by_id);
    for (size_t i = 0; i < N_PLACES; i++)
        drop_all(&h->lists[i]);
    for (size_t i = 0; i < h->n_shards; i++)
        shard_free(h->shards[i]);
    free(h->shards);
    curl_share_cleanup(h->setup.shared);
    X509_STORE_free(h->trusted);
    free(h->ca_file);
    timer_free(h->turn);
    timer_free(h->room);
    free(h->user_agent);
    connect_to_free(h->connect_to);
    free(h);
    curl_global_cleanup();
}
