/* What test_http.c leaves out: certificates, and a name server that does not answer. getaddrinfo()
 * is ours here, so every name is under our control. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "worker/io/http.h"

static struct loop *loop;
static struct http *http;

/* ---- the name server: every name is 127.0.0.1, once the gate is open; unknown.test is none ----
 */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static bool gate_open = true;
static unsigned waiting, most_waiting, looked_up;

static void set_gate(bool open)
{
    pthread_mutex_lock(&gate);
    gate_open = open;
    pthread_cond_broadcast(&gate_changed);
    pthread_mutex_unlock(&gate);
}

static void pass_gate(void)
{
    pthread_mutex_lock(&gate);
    looked_up++;
    waiting++;
    most_waiting = MAX(most_waiting, waiting);
    while (!gate_open)
        pthread_cond_wait(&gate_changed, &gate);
    waiting--;
    pthread_cond_broadcast(&gate_changed);
    pthread_mutex_unlock(&gate);
}

static void wait_for_resolvers(void)
{
    set_gate(true);
    pthread_mutex_lock(&gate);
    while (waiting > 0)
        pthread_cond_wait(&gate_changed, &gate);
    pthread_mutex_unlock(&gate);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    (void)hints;
    pass_gate();
    if (strcmp(name, "unknown.test") == 0)
        return EAI_NONAME;
    struct addrinfo *a = xcalloc(1, sizeof *a);
    struct sockaddr_in *sa = xcalloc(1, sizeof *sa);
    sa->sin_family = AF_INET;
    sa->sin_port = htons((uint16_t)strtoul(service, NULL, 10));
    sa->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *a = (struct addrinfo){.ai_family = AF_INET,
                           .ai_socktype = SOCK_STREAM,
                           .ai_protocol = IPPROTO_TCP,
                           .ai_addrlen = sizeof *sa,
                           .ai_addr = (struct sockaddr *)sa};
    *out = a;
    return 0;
}

void freeaddrinfo(struct addrinfo *a)
{
    free(a->ai_addr);
    free(a);
}

/* ---- a server in a thread: one request a connection, with TLS or without ---- */

static struct {
    int fd;
    uint16_t port;
    pthread_t thread;
    SSL_CTX *tls; /* NULL: plain */
    char certificate[40];
} server;

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

static void serve_plain(int fd)
{
    char request[4096];
    if (recv(fd, request, sizeof request, 0) > 0)
        send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
}

static void serve_tls(int fd)
{
    char request[4096];
    SSL *ssl = SSL_new(server.tls);
    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1 && SSL_read(ssl, request, sizeof request) > 0) {
        SSL_write(ssl, answer, sizeof answer - 1);
        SSL_shutdown(ssl);
    }
    SSL_free(ssl);
}

static void *serve(void *arg)
{
    (void)arg;
    int fd;
    while ((fd = accept(server.fd, NULL, NULL)) >= 0) {
        if (server.tls)
            serve_tls(fd);
        else
            serve_plain(fd);
        close(fd);
    }
    return NULL;
}

/* Below 32768, so that no outgoing connection can hold it. */
static void server_start(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (unsigned i = 0; i < 1000; i++) {
        server.port = (uint16_t)(20000 + ((unsigned)getpid() * 13 + i) % 12000);
        a.sin_port = htons(server.port);
        if (bind(server.fd, (struct sockaddr *)&a, sizeof a) == 0)
            break;
    }
    assert_int_equal(listen(server.fd, 256), 0);
    assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
}

static void server_stop(void)
{
    shutdown(server.fd, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.fd);
}

/* ---- a certificate for good.test that signs itself ---- */

static void name_it(X509 *x)
{
    X509_NAME *name = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(x, name);
    char names[] = "DNS:good.test";
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
}

static X509 *certify(EVP_PKEY *key)
{
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, key);
    name_it(x);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    return x;
}

static void make_tls(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = certify(key);
    server.tls = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(server.tls, x), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(server.tls, key), 1);
    snprintf(server.certificate, sizeof server.certificate, "/tmp/test_transfer.XXXXXX");
    FILE *f = fdopen(mkstemp(server.certificate), "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, x), 1);
    fclose(f);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void drop_tls(void)
{
    if (server.tls)
        unlink(server.certificate);
    SSL_CTX_free(server.tls);
    server.tls = NULL;
}

/* ---- the client ---- */

static unsigned n_ok, n_by_fault[N_FAULTS], n_replies, wanted;
static char last_text[300];

static void on_reply(void *arg, uint64_t id, const struct reply *r)
{
    (void)arg;
    (void)id;
    n_replies++;
    n_by_fault[r->fault]++;
    n_ok += r->status == 200 && strcmp(r->body, "ok") == 0;
    snprintf(last_text, sizeof last_text, "%s", r->fault_text ? r->fault_text : "");
    if (n_replies == wanted)
        loop_stop(loop);
}

static void on_out_of_time(void *arg)
{
    (void)arg;
    loop_stop(loop);
}

static void run_until(unsigned replies, unsigned ms)
{
    struct timer *t = timer_new(loop, on_out_of_time, NULL);
    timer_arm(t, loop_now_ns() + ms * NS_PER_MS);
    wanted = replies;
    loop_run(loop);
    timer_free(t);
}

static void ask(uint64_t id, const char *scheme, const char *host, bool own_host)
{
    struct call c;
    call_init(&c, 1, "GET");
    c.url = xasprintf("%s://%s:%d/", scheme, host, server.port);
    c.own_host = own_host;
    c.timeout_ms = 5000;
    http_send(http, id, &c);
}

static void start_client(bool allow_http, const char *ca_file)
{
    struct http_options o = {.allow_http = allow_http,
                             .ca_file = ca_file,
                             .user_agent = "test/1",
                             .max_in_flight = 1000,
                             .max_connects = 16};
    http = http_new(loop, &o, on_reply, NULL);
}

static int setup(void **state)
{
    (void)state;
    n_ok = n_replies = most_waiting = looked_up = 0;
    memset(n_by_fault, 0, sizeof n_by_fault);
    loop = loop_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_free(http);
    wait_for_resolvers();
    server_stop();
    drop_tls();
    loop_free(loop);
    return 0;
}

/* ---- tests ---- */

static void test_trusted_certificate(void **state)
{
    (void)state;
    make_tls();
    server_start();
    start_client(false, server.certificate);
    for (uint64_t id = 1; id <= 2; id++) {
        ask(id, "https", "good.test", false);
        run_until((unsigned)id, 5000);
    }
    assert_int_equal(n_ok, 2);
}

static void test_certificate_of_another_host(void **state)
{
    (void)state;
    make_tls();
    server_start();
    start_client(false, server.certificate);
    ask(1, "https", "evil.test", false);
    run_until(1, 5000);
    assert_int_equal(n_by_fault[FAULT_CONNECT], 1);
    assert_non_null(strstr(last_text, "evil.test"));
}

static void test_certificate_that_nobody_vouches_for(void **state)
{
    (void)state;
    make_tls();
    server_start();
    start_client(false, NULL);
    ask(1, "https", "good.test", false);
    run_until(1, 5000);
    assert_int_equal(n_by_fault[FAULT_CONNECT], 1);
    assert_non_null(strstr(last_text, "certificate"));
}

/* Preview hosts that cannot be looked up take neither a thread each nor the API's turn. */
static void test_silent_name_server(void **state)
{
    (void)state;
    server_start();
    start_client(true, NULL);
    set_gate(false);
    char host[40];
    for (unsigned i = 0; i < 200; i++) {
        snprintf(host, sizeof host, "sandbox-%u.test", i);
        ask(i, "http", host, true);
    }
    ask(1000, "http", "127.0.0.1", false);
    run_until(1, 5000);
    assert_int_equal(n_ok, 1);
    run_until(2, 100);
    assert_int_equal(n_replies, 1);
    assert_true(most_waiting >= 48 && most_waiting <= 80);
    set_gate(true);
    run_until(201, 10000);
    assert_int_equal(n_ok, 201);
    assert_int_equal(looked_up, 200);
}

static void test_deadline_does_not_wait_for_the_name_server(void **state)
{
    (void)state;
    server_start();
    start_client(true, NULL);
    set_gate(false);
    struct call c;
    call_init(&c, 1, "GET");
    c.url = xasprintf("http://sandbox.test:%d/", server.port);
    c.timeout_ms = 50;
    http_send(http, 1, &c);
    uint64_t start = loop_now_ns();
    run_until(1, 5000);
    assert_int_equal(n_by_fault[FAULT_CONNECT], 1); /* nothing was sent */
    assert_true(loop_now_ns() - start < NS_PER_S);
}

/* What is given up goes on in its thread: more must not begin in its place. */
static void test_look_ups_given_up_still_count(void **state)
{
    (void)state;
    server_start();
    start_client(true, NULL);
    set_gate(false);
    for (unsigned i = 0; i < 300; i++) {
        struct call c;
        call_init(&c, 1, "GET");
        c.url = xasprintf("http://sandbox-%u.test:%d/", i, server.port);
        c.own_host = true;
        c.timeout_ms = 100 + i / 100 * 100;
        http_send(http, i, &c);
    }
    run_until(100, 5000);
    for (unsigned i = 1000; i < 1020; i++) { /* nor in the place of those that are cancelled */
        ask(i, "http", "another.test", true);
        http_cancel(http, i - 800);
    }
    run_until(280, 5000);
    assert_int_equal(n_by_fault[FAULT_CONNECT], 280);
    assert_true(looked_up >= 48 && looked_up <= 80);
    ask(2000, "http", "127.0.0.1", false); /* the API is not affected */
    run_until(281, 5000);
    assert_int_equal(n_ok, 1);
}

/* Look-ups that end leave nothing behind, whether the name is known or not. */
static void test_look_ups_that_end_make_room(void **state)
{
    (void)state;
    server_start();
    start_client(true, NULL);
    for (unsigned i = 0; i < 200; i++)
        ask(i, "http", i % 2 ? "sandbox.test" : "unknown.test", true);
    run_until(200, 10000);
    assert_int_equal(n_ok, 100);
    assert_int_equal(n_by_fault[FAULT_CONNECT], 100);
    assert_int_equal(looked_up, 200);
}

/* A sandbox's name may say what it likes. */
static void test_addresses_that_nobody_asks(void **state)
{
    (void)state;
    server_start();
    start_client(true, NULL);
    static const char *const hosts[] = {
        "[fd00:ec2::254]",          "169.254.169.254",          "100.100.100.200",
        "[64:ff9b::a9fe:a9fe]",     "[64:ff9b::6464:64c8]",     "[fe80::1]",
        "[::ffff:169.254.169.254]", "[::ffff:100.100.100.200]",
    };
    for (unsigned i = 0; i < ARRAY_LEN(hosts); i++) {
        ask(i + 1, "http", hosts[i], true);
        run_until(i + 1, 5000);
        assert_int_equal(n_by_fault[FAULT_REFUSED], i + 1);
    }
}

int main(void)
{
    alarm(60);
    signal(SIGPIPE, SIG_IGN); /* as the worker does: OpenSSL writes to what may be closed */
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_trusted_certificate),
        T(test_certificate_of_another_host),
        T(test_certificate_that_nobody_vouches_for),
        T(test_silent_name_server),
        T(test_deadline_does_not_wait_for_the_name_server),
        T(test_look_ups_given_up_still_count),
        T(test_look_ups_that_end_make_room),
        T(test_addresses_that_nobody_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
