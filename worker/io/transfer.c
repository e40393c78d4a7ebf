/* transfer: one easy handle, used for call after call.
 *
 * Options that never change are set once, in constants[] and set_up(); a call sets only its URL,
 * headers, method and body. A handle keeps to one of two kinds: the API (name cached, HTTP/2 if
 * there is any) or a sandbox's own host, which libcurl would remember for a minute each and search
 * at the end of every transfer: so no DNS cache there, no HTTP/2, no kept TLS sessions.
 *
 * libcurl repeats a request by itself when a kept-alive connection dies before the first byte of
 * the answer. That is right for what may be repeated and wrong for the rest, so before_send() lets
 * only the former go out twice. Uvicorn and Node close idle connections after 5 s; ours are not
 * used again after 4.
 *
 * The peer is not trusted: bytes of headers and body are counted here, since libcurl's own limit
 * ignores chunked bodies; header values with control bytes are refused, since libcurl would send
 * them; a sandbox's host name must not lead to this machine or to a cloud's metadata service. */
#include "worker/io/transfer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "common/xalloc.h"
#include "worker/io/connect_to.h"

#define HEADER_BYTES_MAX 65536
#define KEPT_HEADER_MAX 2048 /* a longer one is dropped */
#define KEPT_BYTES_MAX (REPLY_HEADERS_MAX * KEPT_HEADER_MAX)
#define KEEP_CAPACITY 16384 /* a body buffer larger than this is not kept for the next call */
#define CONNECT_MS 10000L
#define IDLE_SECONDS 4L
#define RECEIVE_BUFFER 4096L /* an API answer with its headers is about 2.5 kB */

static void set(CURL *easy, CURLoption option, long value)
{
    ASSERT(curl_easy_setopt(easy, option, value) == CURLE_OK);
}

static void set_ptr(CURL *easy, CURLoption option, const void *value)
{
    ASSERT(curl_easy_setopt(easy, option, value) == CURLE_OK);
}

/* ---- what libcurl calls ---- */

static int before_resolving(void *resolver, void *reserved, void *arg)
{
    struct transfer *t = arg;
    (void)resolver, (void)reserved;
    if (!t->resolving)
        resolving_begin(&t->setup->resolving[t->own_host]);
    t->resolving = true;
    return 0;
}

static void resolved(struct transfer *t)
{
    if (t->resolving)
        resolving_end(&t->setup->resolving[t->own_host]);
    t->resolving = false;
}

static void give_up_resolving(struct transfer *t)
{
    if (t->resolving)
        resolving_give_up(&t->setup->resolving[t->own_host], loop_now_ns());
    t->resolving = false;
}

static int before_send(void *arg, char *ip, char *local_ip, int port, int local_port)
{
    struct transfer *t = arg;
    (void)ip, (void)local_ip, (void)port, (void)local_port;
    if (t->sends++ > 0 && !t->call.repeatable && transfer_was_sent(t))
        return CURL_PREREQFUNC_ABORT;
    return CURL_PREREQFUNC_OK;
}

struct bad_v4 {
    uint32_t net, mask;
    bool loopback; /* allowed where plain http is: one machine, for trying it out */
};

static const struct bad_v4 *find_bad_v4(uint32_t ip)
{
    static const struct bad_v4 table[] = {
        {0x7f000000, 0xff000000, true},  /* 127.0.0.0/8 */
        {0x00000000, 0xff000000, true},  /* 0.0.0.0/8 */
        {0xa9fe0000, 0xffff0000, false}, /* 169.254.0.0/16: link-local, and most clouds' metadata */
        {0x646464c8, 0xffffffff, false}, /* 100.100.100.200: Alibaba's metadata */
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if ((ip & table[i].mask) == table[i].net)
            return &table[i];
    return NULL;
}

/* An IPv4 address in an IPv6 one: ::ffff:0:0/96, or 64:ff9b::/96, which NAT64 translates. */
static bool holds_v4(const struct in6_addr *ip)
{
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    return IN6_IS_ADDR_V4MAPPED(ip) || memcmp(ip, nat64, sizeof nat64) == 0;
}

static bool v4_allowed(const struct transfer *t, uint32_t ip)
{
    const struct bad_v4 *bad = find_bad_v4(ip);
    return !bad || (bad->loopback && t->setup->allow_http);
}

static bool v6_allowed(const struct transfer *t, const struct in6_addr *ip)
{
    static const struct in6_addr metadata = {
        {{0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, 0x54}}}; /* fd00:ec2::254, AWS's */
    if (holds_v4(ip))
        return v4_allowed(t, ntohl(ip->s6_addr32[3]));
    if (IN6_IS_ADDR_LOOPBACK(ip) || IN6_IS_ADDR_UNSPECIFIED(ip))
        return t->setup->allow_http;
    return !IN6_IS_ADDR_LINKLOCAL(ip) && !IN6_ARE_ADDR_EQUAL(ip, &metadata);
}

static bool address_allowed(const struct transfer *t, const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET)
        return v4_allowed(t,
                          ntohl(((const struct sockaddr_in *)(const void *)addr)->sin_addr.s_addr));
    if (addr->sa_family == AF_INET6)
        return v6_allowed(t, &((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr);
    return true;
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct transfer *t = arg;
    (void)purpose;
    resolved(t);
    if (t->own_host && !address_allowed(t, &a->addr)) {
        t->bad_address = true;
        return CURL_SOCKET_BAD;
    }
    int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
    if (fd < 0)
        t->socket_errno = errno;
    return fd;
}

static CURLcode use_trusted(CURL *easy, void *ssl_ctx, void *arg)
{
    struct transfer *t = arg;
    (void)easy;
    SSL_CTX_set1_cert_store(ssl_ctx, t->setup->trusted(t));
    return CURLE_OK;
}

/* "HTTP/1.1 200 OK": a new block of headers, perhaps after an informational one. */
static void on_status(struct transfer *t, const char *line, size_t n)
{
    const char *space = memchr(line, ' ', n);
    int64_t status = 0;
    if (!space || line + n - space < 4 || !parse_i64(space + 1, 3, 100, 999, &status))
        status = 0;
    t->status = (int)status;
    buf_clear(&t->kept);
    t->n_kept = 0;
    if (t->call.close_on_2xx && !t->closes && status / 100 == 2) {
        set(t->easy, CURLOPT_FORBID_REUSE, 1);
        t->closes = true;
    }
}

/* Length of the name if the header is one that is kept, else 0. */
static size_t kept_name(const char *line, size_t n)
{
    static const struct {
        const char *name;
        size_t len;
        bool prefix;
    } names[] = {
        {"content-type", 12, false}, {"date", 4, false},         {"location", 8, false},
        {"retry-after", 11, true},   {"x-ratelimit-", 12, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (n <= names[i].len || strncasecmp(line, names[i].name, names[i].len) != 0)
            continue;
        const char *colon = memchr(line + names[i].len, ':', n - names[i].len);
        if (colon && (names[i].prefix || colon == line + names[i].len))
            return (size_t)(colon - line);
    }
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void keep_header(struct transfer *t, const char *line, size_t n, size_t name_len)
{
    char text[KEPT_HEADER_MAX];
    const char *value = line + name_len + 1, *end = line + n;
    while (value < end && is_blank(*value))
        value++;
    while (value < end && is_blank(end[-1]))
        end--;
    size_t len = (size_t)(end - value), need = name_len + len + 2;
    if (t->n_kept == REPLY_HEADERS_MAX || need > sizeof text || memchr(value, '\0', len))
        return;
    for (size_t i = 0; i < name_len; i++)
        text[i] = (char)(line[i] >= 'A' && line[i] <= 'Z' ? line[i] + 32 : line[i]);
    text[name_len] = '\0';
    memcpy(text + name_len + 1, value, len);
    text[need - 1] = '\0';
    buf_add(&t->kept, text, need);
    t->n_kept++;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    ASSERT(size == 1);
    t->header_bytes += n;
    if (t->header_bytes > HEADER_BYTES_MAX) {
        t->too_large = true;
        return 0;
    }
    size_t name_len = kept_name(line, n);
    if (name_len)
        keep_header(t, line, n, name_len);
    else if (n > 5 && memcmp(line, "HTTP/", 5) == 0)
        on_status(t, line, n);
    return n;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    ASSERT(size == 1);
    buf_add(&t->body, bytes, n);
    if (t->body.overflow) {
        t->too_large = true;
        return 0;
    }
    if (t->call.stream)
        t->setup->grew(t);
    return n;
}

/* ---- the handle ---- */

static const struct {
    CURLoption option;
    long value;
} constants[] = {
    {CURLOPT_NOSIGNAL, 1},
    {CURLOPT_QUICK_EXIT, 1}, /* else a slow name server holds the whole loop */
    {CURLOPT_FOLLOWLOCATION, 0},
    {CURLOPT_PATH_AS_IS, 1},
    {CURLOPT_DISALLOW_USERNAME_IN_URL, 1},
    {CURLOPT_NETRC, CURL_NETRC_IGNORED},
    {CURLOPT_SSL_VERIFYPEER, 1},
    {CURLOPT_SSL_VERIFYHOST, 2},
    {CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2},
    {CURLOPT_TCP_NODELAY, 1},
    {CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS},
    {CURLOPT_MAXAGE_CONN, IDLE_SECONDS},
    {CURLOPT_BUFFERSIZE, RECEIVE_BUFFER},
};

static void set_kind(struct transfer *t)
{
    if (t->own_host) {
        set(t->easy, CURLOPT_DNS_CACHE_TIMEOUT, 0);
        set(t->easy, CURLOPT_SSL_SESSIONID_CACHE, 0);
        set(t->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    } else {
        set(t->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_2TLS);
        set_ptr(t->easy, CURLOPT_SHARE, t->setup->shared);
    }
}

static void set_callbacks(struct transfer *t)
{
    set_ptr(t->easy, CURLOPT_PRIVATE, t);
    set_ptr(t->easy, CURLOPT_ERRORBUFFER, t->error);
    set_ptr(t->easy, CURLOPT_WRITEDATA, t);
    set_ptr(t->easy, CURLOPT_HEADERDATA, t);
    set_ptr(t->easy, CURLOPT_PREREQDATA, t);
    set_ptr(t->easy, CURLOPT_OPENSOCKETDATA, t);
    set_ptr(t->easy, CURLOPT_RESOLVER_START_DATA, t);
    set_ptr(t->easy, CURLOPT_SSL_CTX_DATA, t);
    ASSERT(curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK);
    ASSERT(curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK);
    ASSERT(curl_easy_setopt(t->easy, CURLOPT_PREREQFUNCTION, before_send) == CURLE_OK);
    ASSERT(curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETFUNCTION, open_socket) == CURLE_OK);
    ASSERT(curl_easy_setopt(t->easy, CURLOPT_RESOLVER_START_FUNCTION, before_resolving) ==
           CURLE_OK);
    ASSERT(curl_easy_setopt(t->easy, CURLOPT_SSL_CTX_FUNCTION, use_trusted) == CURLE_OK);
}

static void set_up(struct transfer *t)
{
    for (size_t i = 0; i < ARRAY_LEN(constants); i++)
        set(t->easy, constants[i].option, constants[i].value);
    set_ptr(t->easy, CURLOPT_PROTOCOLS_STR, t->setup->allow_http ? "http,https" : "https");
    set_ptr(t->easy, CURLOPT_PROXY, "");
    set_ptr(t->easy, CURLOPT_NOPROXY, "*");
    set_ptr(t->easy, CURLOPT_CAINFO, NULL);
    set_ptr(t->easy, CURLOPT_CAPATH, NULL);
    set_ptr(t->easy, CURLOPT_USERAGENT, t->setup->user_agent);
    set_kind(t);
    set_callbacks(t);
}

struct transfer *transfer_new(const struct transfer_setup *setup, bool own_host)
{
    struct transfer *t = xcalloc(1, sizeof *t);
    t->setup = setup;
    t->own_host = own_host;
    t->easy = curl_easy_init();
    ASSERT(t->easy);
    buf_init(&t->lines, SIZE_MAX / 4);
    buf_init(&t->kept, KEPT_BYTES_MAX);
    buf_init(&t->body, 1);
    set_up(t);
    return t;
}

void transfer_free(struct transfer *t)
{
    if (!t)
        return;
    transfer_clear(t);
    curl_easy_cleanup(t->easy);
    buf_done(&t->lines);
    buf_done(&t->kept);
    buf_done(&t->body);
    free(t);
}

/* ---- a call ---- */

static bool refuse(struct transfer *t, const char *text)
{
    t->fault = FAULT_REFUSED;
    t->fault_text = text;
    return false;
}

static bool has_control(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return true;
    }
    return false;
}

/* An empty value is written "name;": libcurl takes "name:" for "do not send it". */
static void add_line(struct transfer *t, const char *name, const char *value)
{
    buf_adds(&t->lines, name);
    buf_adds(&t->lines, *value ? ": " : ";");
    buf_add(&t->lines, value, strlen(value) + 1);
}

/* The list that libcurl reads is made of our own nodes and one buffer: no allocation per header. */
static void set_headers(struct transfer *t, bool posts)
{
    const struct call *call = &t->call;
    buf_clear(&t->lines);
    for (size_t i = 0; i < call->n_headers; i++)
        add_line(t, call->headers[i].name, call->headers[i].value);
    size_t n = call->n_headers;
    if (posts) {
        if (call->body && call->content_type)
            add_line(t, "Content-Type", call->content_type);
        else
            buf_add(&t->lines, "Content-Type:", sizeof "Content-Type:");
        buf_add(&t->lines, "Expect:", sizeof "Expect:");
        n += 2;
    }
    char *line = t->lines.data;
    for (size_t i = 0; i < n; i++) {
        t->nodes[i] = (struct curl_slist){line, i + 1 < n ? &t->nodes[i + 1] : NULL};
        line += strlen(line) + 1;
    }
    set_ptr(t->easy, CURLOPT_HTTPHEADER, n ? &t->nodes[0] : NULL);
}

static void set_method(struct transfer *t, bool posts)
{
    const struct call *call = &t->call;
    if (posts) {
        curl_off_t len = call->body ? (curl_off_t)call->body_len : 0;
        ASSERT(curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, len) == CURLE_OK);
        set_ptr(t->easy, CURLOPT_POSTFIELDS, call->body ? call->body : "");
    } else if (t->posts) {
        set(t->easy, CURLOPT_HTTPGET, 1);
    }
    t->posts = posts;
    bool custom = strcmp(call->method, posts ? "POST" : "GET") != 0;
    if (custom || t->custom)
        set_ptr(t->easy, CURLOPT_CUSTOMREQUEST, custom ? call->method : NULL);
    t->custom = custom;
}

/* Wait for the first connection of a TLS host to say whether it can carry more. In clear text only
 * its first answer would say so, and a server may hold that for half a minute. */
static void set_pipewait(struct transfer *t)
{
    bool waits = !t->own_host && strncasecmp(t->call.url, "https:", 6) == 0;
    if (waits != t->waits)
        set(t->easy, CURLOPT_PIPEWAIT, waits);
    t->waits = waits;
}

bool transfer_begin(struct transfer *t, struct call *call)
{
    t->call = *call;
    *call = (struct call){0};
    t->body.max = MAX(t->call.max_reply, 1);
    for (size_t i = 0; i < t->call.n_headers; i++) {
        if (has_control(t->call.headers[i].value))
            return refuse(t, "a header value holds control bytes");
    }
    if (!t->call.url || has_control(t->call.url))
        return refuse(t, "the URL is missing or holds control bytes");
    ASSERT(t->call.n_headers <= CALL_HEADERS_MAX && t->call.method);
    bool posts = t->call.body || strcmp(t->call.method, "POST") == 0;
    if (t->closes)
        set(t->easy, CURLOPT_FORBID_REUSE, 0);
    t->closes = false;
    set_ptr(t->easy, CURLOPT_URL, t->call.url);
    if (t->setup->connect_to)
        set_ptr(t->easy, CURLOPT_CONNECT_TO, connect_to_find(t->setup->connect_to, t->call.url));
    set_pipewait(t);
    set_method(t, posts);
    set_headers(t, posts);
    return true;
}

bool transfer_was_sent(const struct transfer *t)
{
    long bytes = 0;
    return curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &bytes) == CURLE_OK && bytes > 0;
}

/* What our own machine would not give to connect; NULL: it is not to blame. Of the rest of a
 * transfer the errno may be an old one. */
static const char *own_shortage(const struct transfer *t, CURLcode code)
{
    static const struct {
        int number;
        const char *text;
    } shortages[] = {
        {EMFILE, "the worker has no file descriptor left: raise LimitNOFILE (ulimit -n)"},
        {ENFILE, "the worker's machine has no file descriptor left (fs.file-max)"},
        {ENOMEM, "the worker's machine has no memory left for a connection"},
        {ENOBUFS, "the worker's machine has no memory left for a connection"},
        {EADDRNOTAVAIL, "the worker's machine has no local port or address left to connect from"},
    };
    long number = t->socket_errno;
    if (code != CURLE_COULDNT_CONNECT)
        return NULL;
    if (!number)
        curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &number);
    for (size_t i = 0; i < ARRAY_LEN(shortages); i++)
        if (shortages[i].number == number)
            return shortages[i].text;
    return NULL;
}

void transfer_judge(struct transfer *t, CURLcode code)
{
    if (code == CURLE_OK || code == CURLE_COULDNT_RESOLVE_HOST)
        resolved(t);
    give_up_resolving(t);
    if (code == CURLE_OK)
        return;
    t->fault_text = own_shortage(t, code);
    if (!t->fault_text)
        t->fault_text = t->error[0] ? t->error : curl_easy_strerror(code);
    if (t->too_large) {
        t->fault = FAULT_TOO_LARGE;
    } else if (t->bad_address) {
        refuse(t, "the host's address is not one to connect to");
    } else if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL ||
               code == CURLE_LOGIN_DENIED) {
        t->fault = FAULT_REFUSED;
    } else {
        t->fault = transfer_was_sent(t) ? FAULT_LOST : FAULT_CONNECT;
    }
}

void transfer_reply(const struct transfer *t, struct reply *out,
                    struct reply_header headers[REPLY_HEADERS_MAX])
{
    *out = (struct reply){.fault = t->fault, .headers = headers};
    if (t->fault) {
        out->fault_text = t->fault_text;
        return;
    }
    const char *text = t->kept.data;
    for (size_t i = 0; i < t->n_kept; i++) {
        headers[i].name = text;
        headers[i].value = text + strlen(text) + 1;
        text = headers[i].value + strlen(headers[i].value) + 1;
        if (strcmp(headers[i].name, "date") == 0)
            out->date_ms = http_date_ms(headers[i].value);
    }
    out->n_headers = t->n_kept;
    out->status = t->status;
    out->body = buf_text(&t->body);
    out->body_len = t->body.len;
}

void transfer_clear(struct transfer *t)
{
    give_up_resolving(t);
    call_done(&t->call);
    t->call = (struct call){0};
    if (t->body.cap > KEEP_CAPACITY)
        buf_done(&t->body);
    buf_clear(&t->body);
    buf_clear(&t->kept);
    t->n_kept = 0;
    t->fault = FAULT_NONE;
    t->fault_text = NULL;
    t->too_large = t->bad_address = false;
    t->socket_errno = 0;
    t->status = 0;
    t->header_bytes = 0;
    t->sends = 0;
    t->error[0] = '\0';
}

/* ---- dates ---- */

static int month_of(const char *text)
{
    static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    for (int i = 0; i < 12; i++) {
        if (memcmp(text, names + i * 3, 3) == 0)
            return i + 1;
    }
    return 0;
}

uint64_t http_date_ms(const char *text)
{
    /* Rewritten as RFC 3339, which common/base.h can read. */
    if (strlen(text) != 29 || memcmp(text + 25, " GMT", 4) != 0 || !month_of(text + 8))
        return 0;
    char rfc3339[] = "yyyy-mm-ddThh:mm:ssZ";
    int month = month_of(text + 8);
    memcpy(rfc3339, text + 12, 4);
    rfc3339[5] = (char)('0' + month / 10);
    rfc3339[6] = (char)('0' + month % 10);
    memcpy(rfc3339 + 8, text + 5, 2);
    memcpy(rfc3339 + 11, text + 17, 8);
    uint64_t ms;
    return parse_time_ms(rfc3339, &ms) ? ms : 0;
}
