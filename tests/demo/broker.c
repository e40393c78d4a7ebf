/* demo-broker: a Kafka that needs nothing installed, on one fixed loopback port.
 *
 * It is librdkafka's mock cluster of one broker: in memory, 5 MiB a partition, and without
 * transactions worth the name, so workers must be at_least_once. The mock listens on a port of its
 * own choice; clients begin at ours, are forwarded byte by byte, and learn the other from the
 * metadata. It cannot create topics when asked to: those named as arguments are there from the
 * start, others come with four partitions when first used.
 *
 * A pair is the two ends of one forwarded connection; it goes when either end does. */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <getopt.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "common/base.h"
#include "common/version.h"
#include "common/xalloc.h"

enum {
    HELD_MAX = 1 << 20, /* bytes that wait for a slow end before its other end is not read */
    RTT_MS = 5,         /* see mock_new() */
};

struct broker {
    struct event_base *base;
    struct sockaddr_storage mock; /* where the mock cluster listens */
    int mock_len;
    const char *listen;
    int64_t partitions;
};

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "demo-broker: %s: %s\n", what, why);
    exit(1);
}

/* ---- the forwarder ---- */

struct pair {
    struct bufferevent *ends[2];
};

static struct bufferevent *other_end(const struct pair *p, const struct bufferevent *end)
{
    return p->ends[end == p->ends[0]];
}

static void forward(struct bufferevent *from, void *arg)
{
    struct bufferevent *to = other_end(arg, from);
    bufferevent_write_buffer(to, bufferevent_get_input(from));
    if (evbuffer_get_length(bufferevent_get_output(to)) > HELD_MAX)
        bufferevent_disable(from, EV_READ);
}

static void drained(struct bufferevent *end, void *arg)
{
    bufferevent_enable(other_end(arg, end), EV_READ);
}

static void happened(struct bufferevent *end, short what, void *arg)
{
    struct pair *p = arg;
    (void)end;
    if (what & BEV_EVENT_CONNECTED)
        return;
    bufferevent_free(p->ends[0]);
    bufferevent_free(p->ends[1]);
    free(p);
}

static void accepted(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *peer, int len,
                     void *arg)
{
    struct broker *b = arg;
    struct pair *p = xcalloc(1, sizeof *p);
    (void)l;
    (void)peer;
    (void)len;
    p->ends[0] = bufferevent_socket_new(b->base, fd, BEV_OPT_CLOSE_ON_FREE);
    p->ends[1] = bufferevent_socket_new(b->base, -1, BEV_OPT_CLOSE_ON_FREE);
    ASSERT(p->ends[0] && p->ends[1]);
    for (size_t i = 0; i < ARRAY_LEN(p->ends); i++) {
        bufferevent_setcb(p->ends[i], forward, drained, happened, p);
        bufferevent_enable(p->ends[i], EV_READ | EV_WRITE);
    }
    /* When it fails at once, happened() will be called all the same. */
    (void)bufferevent_socket_connect(p->ends[1], (struct sockaddr *)&b->mock, b->mock_len);
}

static struct evconnlistener *listen_on(struct broker *b)
{
    struct sockaddr_storage at;
    int len = sizeof at;
    if (!strchr(b->listen, ':') ||
        evutil_parse_sockaddr_port(b->listen, (struct sockaddr *)&at, &len)) {
        fprintf(stderr, "demo-broker: --listen wants HOST:PORT, as 127.0.0.1:19092 (is %s)\n",
                b->listen);
        exit(2);
    }
    struct evconnlistener *l =
        evconnlistener_new_bind(b->base, accepted, b, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, -1,
                                (struct sockaddr *)&at, len);
    if (!l)
        die(b->listen, strerror(errno));
    return l;
}

/* ---- the mock cluster ---- */

static rd_kafka_t *handle_new(void)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, NULL); /* clients that come and go are not worth a line */
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (!rk)
        die("librdkafka", why);
    return rk;
}

/* A command that comes while the mock is busy with the one before may wait for its next turn, up to
 * a second. */
static void let_it_rest(void)
{
    static const struct timespec moment = {.tv_nsec = 3 * NS_PER_MS};
    nanosleep(&moment, NULL);
}

/* A round trip that takes its time is not for looks. When several members join a group at once and
 * their leader's SyncGroup is there first, the mock refuses those of the others; but the leader
 * asks for metadata in between, and the others do not. */
static void mock_new(struct broker *b, rd_kafka_t *rk, char **topics)
{
    rd_kafka_mock_cluster_t *mock = rd_kafka_mock_cluster_new(rk, 1);
    if (!mock)
        die("librdkafka", "no mock cluster");
    const char *where = rd_kafka_mock_cluster_bootstraps(mock);
    b->mock_len = sizeof b->mock;
    if (evutil_parse_sockaddr_port(where, (struct sockaddr *)&b->mock, &b->mock_len))
        die("the mock cluster is at", where);
    for (; *topics; topics++) {
        let_it_rest();
        rd_kafka_resp_err_t err = rd_kafka_mock_topic_create(mock, *topics, (int)b->partitions, 1);
        if (err)
            die(*topics, rd_kafka_err2str(err));
    }
    let_it_rest();
    rd_kafka_mock_broker_set_rtt(mock, 1, RTT_MS);
}

/* ---- starting ---- */

static const char usage[] =
    "usage: demo-broker [--listen HOST:PORT] [--partitions N] [--version] TOPIC...\n"
    "An in-memory, at-least-once Kafka on 127.0.0.1:19092; topics have 8 "
    "partitions.\n";

static _Noreturn void refuse(FILE *to, int code)
{
    fputs(usage, to);
    exit(code);
}

/* The topics; NULL ends them. */
static char **read_arguments(int argc, char **argv, struct broker *b)
{
    static const struct option options[] = {{"listen", required_argument, NULL, 'l'},
                                            {"partitions", required_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'V'},
                                            {0}};
    for (int c; (c = getopt_long(argc, argv, "hV", options, NULL)) != -1;) {
        if (c == 'h')
            refuse(stdout, 0);
        if (c == 'V') {
            puts("demo-broker " VERSION);
            exit(0);
        }
        if (c == 'l')
            b->listen = optarg;
        else if (c != 'p' || !parse_i64(optarg, strlen(optarg), 1, 1000, &b->partitions))
            refuse(stderr, 2);
    }
    return argv + optind;
}

static void stop(evutil_socket_t number, short what, void *base)
{
    (void)number;
    (void)what;
    event_base_loopbreak(base);
}

int main(int argc, char **argv)
{
    struct broker b = {.listen = "127.0.0.1:19092", .partitions = 8};
    char **topics = read_arguments(argc, argv, &b);
    signal(SIGPIPE, SIG_IGN);
    rd_kafka_t *rk = handle_new();
    mock_new(&b, rk, topics);
    b.base = event_base_new();
    ASSERT(b.base);
    listen_on(&b);
    event_add(evsignal_new(b.base, SIGTERM, stop, b.base), NULL);
    event_add(evsignal_new(b.base, SIGINT, stop, b.base), NULL);
    printf("listening on %s\n", b.listen);
    fflush(stdout);
    event_base_dispatch(b.base);
    _exit(0); /* all it holds is memory */
}
