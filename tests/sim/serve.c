/* daytona-sim: the model behind a port.
 *
 * One thread, one libevent loop. Every request goes to the model at once; its reply waits here
 * until the time that the model gave it, held ones until the model hands them over. A client that
 * leaves takes its reply with it, not what its request has done. Connections are closed, and
 * requests are freed, from a timer and never inside evhttp's own callback. */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/maps.h"
#include "common/version.h"
#include "tests/sim/model.h"

enum {
    OPEN_SECONDS = 3600,
    HEADERS_MAX = 64,
    BACKLOG = 4096,
    BODY_LIMIT = 8 << 20,
    HEADER_LIMIT = 256 << 10
};

struct server {
    struct event_base *base;
    struct evhttp *http;
    struct event *wake; /* when the model wants time to pass */
    struct model *model;
    struct open *held; /* by token */
    unsigned n_open;
    uint64_t started_ns;
    int idle_seconds;
    FILE *ledger;
};

/* A request whose answer is still to be delivered. */
struct open {
    struct server *s;
    struct evhttp_request *rq;
    struct event *timer;
    struct sim_reply reply;
    UT_hash_handle hh;
};

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t now_ns(const struct server *s)
{
    return clock_ns(CLOCK_MONOTONIC) - s->started_ns;
}

static struct timeval until(uint64_t now, uint64_t at)
{
    uint64_t us = at > now ? (at - now + 999) / 1000 : 0;
    return (struct timeval){.tv_sec = (time_t)(us / 1000000),
                            .tv_usec = (suseconds_t)(us % 1000000)};
}

/* ---- delivering ---- */

static void open_free(struct open *o)
{
    if (o->reply.held)
        HASH_DEL(o->s->held, o);
    event_free(o->timer);
    sim_reply_done(&o->reply);
    o->s->n_open--;
    free(o);
}

/* While a request is open its connection may be silent for as long as it takes; after the answer it
 * is closed after some idle seconds, as the API's server does. */
static void allow_silence(struct open *o, int seconds)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(o->rq);
    if (connection)
        evhttp_connection_set_timeout(connection, seconds);
}

static void send_reply(struct open *o)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(o->rq);
    struct evbuffer *body = evbuffer_new();
    for (size_t i = 0; i < o->reply.n_headers; i++)
        evhttp_add_header(headers, o->reply.headers[i].name, o->reply.headers[i].value);
    allow_silence(o, o->s->idle_seconds);
    evbuffer_add(body, o->reply.body.data ? o->reply.body.data : "", o->reply.body.len);
    evhttp_send_reply(o->rq, o->reply.status, NULL, body);
    evbuffer_free(body);
}

static void deliver(struct open *o)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(o->rq);
    if (connection)
        evhttp_connection_set_closecb(connection, NULL, NULL);
    if (o->reply.lost && connection)
        evhttp_connection_free(connection); /* and the request with it */
    else
        send_reply(o);
    open_free(o);
}

static void due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    deliver(arg);
}

static void schedule(struct open *o)
{
    uint64_t now = now_ns(o->s);
    if (o->reply.at_ns == NEVER)
        return;
    struct timeval wait = until(now, o->reply.at_ns);
    if (!o->reply.lost && o->reply.at_ns <= now)
        deliver(o);
    else
        evtimer_add(o->timer, &wait);
}

/* ---- letting the model's time pass ---- */

static void advance(struct server *s)
{
    struct sim_reply reply;
    while (model_advance(s->model, now_ns(s), &reply)) {
        struct open *o = NULL;
        HASH_FIND(hh, s->held, &reply.token, sizeof reply.token, o);
        if (!o) {
            sim_reply_done(&reply);
            continue;
        }
        HASH_DEL(s->held, o);
        o->reply = reply;
        schedule(o);
    }
    uint64_t next = model_next(s->model);
    if (next == NEVER)
        return;
    struct timeval wait = until(now_ns(s), next);
    evtimer_add(s->wake, &wait);
}

static void woken(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    advance(arg);
}

/* ---- receiving ---- */

static void client_left(struct evhttp_connection *connection, void *arg)
{
    struct open *o = arg;
    (void)connection;
    if (o->reply.held)
        model_forget(o->s->model, o->reply.token);
    /* evhttp has let go of the request: nobody but us frees it now */
    if (o->reply.held || o->reply.at_ns == NEVER) {
        evhttp_send_reply(o->rq, 499, NULL, NULL);
        open_free(o);
    }
}

static const char *method_name(enum evhttp_cmd_type type)
{
    static const struct {
        enum evhttp_cmd_type type;
        const char *name;
    } methods[] = {{EVHTTP_REQ_GET, "GET"},        {EVHTTP_REQ_POST, "POST"},
                   {EVHTTP_REQ_HEAD, "HEAD"},      {EVHTTP_REQ_PUT, "PUT"},
                   {EVHTTP_REQ_DELETE, "DELETE"},  {EVHTTP_REQ_PATCH, "PATCH"},
                   {EVHTTP_REQ_OPTIONS, "OPTIONS"}};
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (methods[i].type == type)
            return methods[i].name;
    return "OTHER";
}

static size_t copy_headers(struct evhttp_request *rq, struct sim_header to[HEADERS_MAX])
{
    size_t n = 0;
    for (struct evkeyval *h = evhttp_request_get_input_headers(rq)->tqh_first; h && n < HEADERS_MAX;
         h = h->next.tqe_next)
        to[n++] = (struct sim_header){h->key, h->value};
    return n;
}

static void ask_model(struct open *o)
{
    struct sim_header headers[HEADERS_MAX];
    struct evbuffer *body = evhttp_request_get_input_buffer(o->rq);
    struct evkeyvalq *input = evhttp_request_get_input_headers(o->rq);
    const char *host = evhttp_find_header(input, "Host");
    char *address = NULL;
    ev_uint16_t port;
    evhttp_connection_get_peer(evhttp_request_get_connection(o->rq), &address, &port);
    size_t len = evbuffer_get_length(body);
    struct sim_request request = {
        .method = method_name(evhttp_request_get_command(o->rq)),
        .target = evhttp_request_get_uri(o->rq),
        .host = host ? host : "",
        .headers = headers,
        .n_headers = copy_headers(o->rq, headers),
        .body = len ? (const char *)evbuffer_pullup(body, -1) : NULL,
        .body_len = len,
        .peer = address,
    };
    model_request(o->s->model, now_ns(o->s), &request, &o->reply);
}

static void received(struct evhttp_request *rq, void *arg)
{
    struct server *s = arg;
    struct open *o = xcalloc(1, sizeof *o);
    o->s = s;
    o->rq = rq;
    o->timer = evtimer_new(s->base, due, o);
    s->n_open++;
    model_open_requests(s->model, s->n_open);
    allow_silence(o, OPEN_SECONDS);
    ask_model(o);
    evhttp_connection_set_closecb(evhttp_request_get_connection(rq), client_left, o);
    if (o->reply.held)
        HASH_ADD(hh, s->held, reply.token, sizeof o->reply.token, o);
    else
        schedule(o);
    advance(s);
}

/* ---- starting ---- */

struct arguments {
    char *listen;
    char *public_url, *domain, *scenario, *ledger;
    int idle_seconds;
    struct model_options model;
};

static const char usage[] =
    "usage: daytona-sim [option value]...\n"
    "  --listen HOST:PORT        where to listen (127.0.0.1:3986; port 0: any)\n"
    "  --profile NAME            fast (default), cloud, tier1\n"
    "  --seed N                  of all chance\n"
    "  --scenario FILE           what snapshots and sandboxes do (JSON)\n"
    "  --ledger FILE             a JSON line for every sandbox, written when its name is freed, or "
    "at exit\n"
    "  --idle-seconds N          until an idle connection is closed (6; 0: never)\n"
    "  --boot-ms N               from create or start to started\n"
    "  --server-ms N             from exec to a listening server\n"
    "  --stop-ms N               until stopped or archived\n"
    "  --destroy-ms N            until destroyed (as --stop-ms)\n"
    "  --daemon-ms N             from started until the inside can be reached\n"
    "  --race-ms N               how near KEEP and stop must be to overtake each other\n"
    "  --window-seconds N        of every rate limit (60)\n"
    "  --creates-per-minute N    limit of POST /sandbox in a window\n"
    "  --general-per-minute N    limit of the general scope in a window\n"
    "  --lifecycle-per-minute N  limit of start, stop and delete in a window\n"
    "  --failed-auth N           wrong keys in a window before an address is blocked (50)\n"
    "  --warm N                  sandboxes kept in the warm pool (0)\n"
    "  --pool-refill-ms N        until the warm pool is full again (it is not)\n"
    "  --list-lag-ms N           the list shows what was true that long ago\n"
    "  --public-url URL          what the toolbox URL is built on (http://HOST:PORT)\n"
    "  --domain HOST:PORT        what preview hosts end in (localhost:PORT)\n"
    "  --version\n";

enum option_kind { O_TEXT, O_INT, O_MS, O_SECONDS, O_SEED, O_PROFILE };
struct option_row {
    const char *name;
    enum option_kind kind;
    size_t offset;
};
static const struct option_row option_rows[] = {
    {"listen", O_TEXT, offsetof(struct arguments, listen)},
    {"profile", O_PROFILE, offsetof(struct arguments, model.profile)},
    {"seed", O_SEED, offsetof(struct arguments, model.seed)},
    {"scenario", O_TEXT, offsetof(struct arguments, scenario)},
    {"idle-seconds", O_INT, offsetof(struct arguments, idle_seconds)},
    {"ledger", O_TEXT, offsetof(struct arguments, ledger)},
    {"boot-ms", O_MS, offsetof(struct arguments, model.boot_ms)},
    {"server-ms", O_MS, offsetof(struct arguments, model.server_ms)},
    {"stop-ms", O_MS, offsetof(struct arguments, model.stop_ms)},
    {"destroy-ms", O_MS, offsetof(struct arguments, model.destroy_ms)},
    {"daemon-ms", O_MS, offsetof(struct arguments, model.daemon_ms)},
    {"race-ms", O_MS, offsetof(struct arguments, model.race_ms)},
    {"window-seconds", O_SECONDS, offsetof(struct arguments, model.window_ms)},
    {"creates-per-minute", O_INT, offsetof(struct arguments, model.create_limit)},
    {"general-per-minute", O_INT, offsetof(struct arguments, model.general_limit)},
    {"lifecycle-per-minute", O_INT, offsetof(struct arguments, model.lifecycle_limit)},
    {"failed-auth", O_INT, offsetof(struct arguments, model.failed_auth_limit)},
    {"warm", O_INT, offsetof(struct arguments, model.warm)},
    {"pool-refill-ms", O_MS, offsetof(struct arguments, model.pool_refill_ms)},
    {"list-lag-ms", O_MS, offsetof(struct arguments, model.list_lag_ms)},
    {"public-url", O_TEXT, offsetof(struct arguments, public_url)},
    {"domain", O_TEXT, offsetof(struct arguments, domain)},
};

static bool set_profile(const char *value, enum model_profile *out)
{
    static const char *const names[] = {"fast", "cloud", "tier1"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!strcmp(names[i], value)) {
            *out = (enum model_profile)i;
            return true;
        }
    }
    return false;
}

static bool set_option(struct arguments *a, const struct option_row *row, char *value)
{
    void *to = (char *)a + row->offset;
    int64_t n = 0;
    if (row->kind == O_TEXT) {
        *(char **)to = value;
        return true;
    }
    if (row->kind == O_PROFILE)
        return set_profile(value, to);
    if (!parse_i64(value, strlen(value), 0, row->kind == O_SEED ? INT64_MAX : 100000000, &n))
        return false;
    if (row->kind == O_INT)
        *(int *)to = (int)n;
    else if (row->kind == O_SEED)
        *(uint64_t *)to = (uint64_t)n;
    else
        *(int64_t *)to = row->kind == O_SECONDS ? n * 1000 : MAX(n, 1);
    return true;
}

static void read_arguments(int argc, char **argv, struct arguments *a)
{
    struct option options[ARRAY_LEN(option_rows) + 3] = {0};
    int index;
    for (size_t i = 0; i < ARRAY_LEN(option_rows); i++)
        options[i] = (struct option){option_rows[i].name, required_argument, NULL, 0};
    options[ARRAY_LEN(option_rows)] = (struct option){"help", no_argument, NULL, 'h'};
    options[ARRAY_LEN(option_rows) + 1] = (struct option){"version", no_argument, NULL, 'V'};
    for (int c; (c = getopt_long(argc, argv, "hV", options, &index)) != -1;) {
        if (c == 0 && set_option(a, &option_rows[index], optarg))
            continue;
        if (c == 'V') {
            puts("daytona-sim " VERSION);
            exit(0);
        }
        if (c == 0)
            fprintf(stderr, "daytona-sim: --%s: cannot use \"%s\"\n", option_rows[index].name,
                    optarg);
        fputs(usage, c == 'h' ? stdout : stderr);
        exit(c == 'h' ? 0 : 2);
    }
}

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "daytona-sim: %s: %s\n", what, strerror(errno));
    exit(1);
}

static char *read_file(const char *path)
{
    struct buf text;
    char part[4096];
    size_t n;
    FILE *f = fopen(path, "re");
    if (!f)
        die(path);
    buf_init(&text, BODY_LIMIT);
    while ((n = fread(part, 1, sizeof part, f)) > 0)
        buf_add(&text, part, n);
    fclose(f);
    return buf_steal(&text);
}

static void raise_limits(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
        l.rlim_cur = l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l);
    }
}

/* A listening socket on "host:port"; *port is the real one after. */
static int listen_on(const char *where, int64_t *port)
{
    const char *colon = strrchr(where, ':');
    char *host = xmemdup0(where, colon ? (size_t)(colon - where) : strlen(where));
    struct sockaddr_in sa = {.sin_family = AF_INET};
    socklen_t len = sizeof sa;
    int on = 1;
    bool good = colon && parse_i64(colon + 1, strlen(colon + 1), 0, 65535, port) &&
                inet_pton(AF_INET, host, &sa.sin_addr) == 1;
    free(host);
    if (!good) {
        fprintf(stderr, "daytona-sim: --listen wants HOST:PORT, as 127.0.0.1:3986 (is %s)\n",
                where);
        exit(2);
    }
    sa.sin_port = htons((uint16_t)*port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted ones inherit it */
    if (bind(fd, (struct sockaddr *)&sa, sizeof sa) || listen(fd, BACKLOG) ||
        getsockname(fd, (struct sockaddr *)&sa, &len))
        die(where);
    *port = ntohs(sa.sin_port);
    return fd;
}

static void make_model(struct server *s, struct arguments *a, int64_t port)
{
    char error[MODEL_ERROR_SIZE];
    char *url = xasprintf("http://127.0.0.1:%d", (int)port);
    char *domain = xasprintf("localhost:%d", (int)port);
    char *scenario = a->scenario ? read_file(a->scenario) : NULL;
    a->model.base_url = a->public_url ? a->public_url : url;
    a->model.domain = a->domain ? a->domain : domain;
    a->model.scenario = scenario;
    a->model.wall_ms = clock_ns(CLOCK_REALTIME) / NS_PER_MS;
    s->started_ns = clock_ns(CLOCK_MONOTONIC);
    s->model = model_new(&a->model, error);
    if (!s->model) {
        fprintf(stderr, "daytona-sim: %s\n", error);
        exit(2);
    }
    free(url);
    free(domain);
    free(scenario);
}

static void write_ledger(void *arg, const char *line, size_t len)
{
    struct server *s = arg;
    fwrite(line, 1, len, s->ledger);
    fputc('\n', s->ledger);
}

static void open_ledger(struct server *s, const char *path)
{
    if (!path)
        return;
    s->ledger = fopen(path, "we");
    if (!s->ledger)
        die(path);
    setvbuf(s->ledger, NULL, _IOLBF, 0);
    model_on_destroyed(s->model, write_ledger, s);
}

static void serve_http(struct server *s, int fd)
{
    s->http = evhttp_new(s->base);
    evhttp_set_allowed_methods(s->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                            EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
                                            EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
    evhttp_set_max_body_size(s->http, BODY_LIMIT);
    evhttp_set_max_headers_size(s->http, HEADER_LIMIT);
    evhttp_set_default_content_type(s->http, NULL);
    evhttp_set_timeout(s->http, OPEN_SECONDS);
    evhttp_set_gencb(s->http, received, s);
    if (evhttp_accept_socket(s->http, fd))
        die("evhttp_accept_socket");
}

static void stop(evutil_socket_t signal, short what, void *arg)
{
    struct server *s = arg;
    (void)signal;
    (void)what;
    event_base_loopbreak(s->base);
}

int main(int argc, char **argv)
{
    char usual[] = "127.0.0.1:3986";
    struct arguments a = {.listen = usual, .idle_seconds = 6};
    struct server s = {0};
    int64_t port;
    read_arguments(argc, argv, &a);
    raise_limits();
    signal(SIGPIPE, SIG_IGN);
    int fd = listen_on(a.listen, &port);
    make_model(&s, &a, port);
    s.idle_seconds = a.idle_seconds ? a.idle_seconds : OPEN_SECONDS;
    open_ledger(&s, a.ledger);
    s.base = event_base_new();
    s.wake = evtimer_new(s.base, woken, &s);
    serve_http(&s, fd);
    struct event *term = evsignal_new(s.base, SIGTERM, stop, &s);
    struct event *interrupt = evsignal_new(s.base, SIGINT, stop, &s);
    evsignal_add(term, NULL);
    evsignal_add(interrupt, NULL);
    advance(&s);
    printf("listening on %.*s:%d\n", (int)strcspn(a.listen, ":"), a.listen, (int)port);
    fflush(stdout);
    event_base_dispatch(s.base);
    if (s.ledger) {
        model_close_ledger(s.model);
        fclose(s.ledger);
    }
    _exit(0); /* open requests die with the process, as connections do */
}
