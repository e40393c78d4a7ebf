/* config_check: what is known only when every source has spoken. See config_table.h.
 *
 * Reads the secrets that files hold, resolves what depends on other keys, and checks what must hold
 * between them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_table.h"
#include "common/secret.h"
#include "common/xalloc.h"

#define SECRET_MAX 65536 /* bytes of a secret's file */
#define SESSION_SECRET_MIN 16
#define SILENCE_MS 5000 /* for a FIFO's writer to come; one that is there has … */
#define SILENCES 12     /* … as many of these */

/* Has no writer of the FIFO come yet? (Linux hangs up only on who has seen one.) */
static bool is_unwritten(int fd)
{
    struct stat st;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) && poll(&p, 1, 0) == 0;
}

/* Reads to the end, but at most size bytes, into text: NULL and *len, or why it cannot be read. fd
 * does not block. */
static const char *read_all(int fd, char *text, size_t size, size_t *len)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int silences = 0;
    for (*len = 0; *len < size && silences < SILENCES;) {
        ssize_t n = read(fd, text + *len, size - *len);
        if (n > 0) {
            *len += (size_t)n;
            continue;
        }
        if (n == 0 && (*len > 0 || !is_unwritten(fd)))
            return NULL;
        if (n == 0 && silences > 0)
            return "it is a pipe that nobody writes to";
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return strerror(errno);
        silences += poll(&p, 1, SILENCE_MS) == 0;
    }
    return *len < size ? "whoever writes to it does not finish" : NULL;
}

/* The file's text without the newline at its end, or NULL after an error line. It may be a FIFO,
 * as the shell's <(…) is one. */
static char *read_secret(struct loader *l, const char *path, const char *file, size_t least)
{
    char text[SECRET_MAX + 1];
    size_t n = 0;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    const char *fault = fd >= 0 ? read_all(fd, text, sizeof text, &n) : strerror(errno);
    if (fd >= 0)
        close(fd);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    char *secret = NULL;
    if (fault)
        config_error(l, file, path, "cannot be read: %s", fault);
    else if (n > SECRET_MAX || memchr(text, '\0', n))
        config_error(l, file, path, "must be a text of at most %d bytes", SECRET_MAX);
    else if (n < least)
        config_error(l, file, path, "must hold at least %zu bytes (holds %zu)", least, n);
    else
        secret = xmemdup0(text, n);
    explicit_bzero(text, sizeof text);
    return secret;
}

static void read_secret_of(struct loader *l, const struct key *k, void *base, const char *path)
{
    char **file = config_field(base, k->at), **content = config_field(base, k->at2);
    char *secret = **file ? read_secret(l, path, *file, 1) : NULL;
    if (secret) {
        secret_wipe(*content);
        *content = secret;
    }
}

static void read_secrets(struct loader *l)
{
    struct config *cfg = l->cfg;
    for (size_t i = 0; i < config_n_keys; i++)
        if (config_keys[i].kind == KEY_FILE)
            read_secret_of(l, &config_keys[i], cfg, config_keys[i].path);
    for (size_t i = 0; i < cfg->n_providers; i++) {
        CLEANUP(free_ptr)
        char *path = xasprintf("providers.%s.api_key_file", cfg->providers[i].name);
        read_secret_of(l, config_find(config_provider_keys, config_n_provider_keys, "api_key_file"),
                       &cfg->providers[i], path);
    }
    for (size_t i = 0; i < cfg->session_key.n_secret_files; i++) {
        char *secret = read_secret(l, "session_key.secret_files", cfg->session_key.secret_files[i],
                                   SESSION_SECRET_MIN);
        if (secret)
            config_add_item(&cfg->session_key.secrets, &cfg->session_key.n_secrets, secret,
                            strlen(secret));
        secret_wipe(secret);
    }
}

static void check_fleet_name(struct loader *l)
{
    const struct key *k = config_find(config_keys, config_n_keys, "fleet");
    if (*l->cfg->fleet)
        return;
    const char *fault = k->check(l->cfg->kafka.group);
    if (fault)
        config_error(l, "configuration", "fleet",
                     "is kafka.group unless it is given, and %s (is %.100s): set fleet", fault,
                     l->cfg->kafka.group);
    config_replace(&l->cfg->fleet, l->cfg->kafka.group);
}

static void check_topics(struct loader *l)
{
    const struct config *c = l->cfg;
    const char *const topics[] = {c->topics.jobs, c->topics.results, c->topics.progress,
                                  c->topics.dead_letters};
    for (size_t i = 0; i < ARRAY_LEN(topics); i++)
        for (size_t j = 0; j < i; j++)
            if (*topics[i] && strcmp(topics[i], topics[j]) == 0)
                config_error(l, "configuration", "topics", "must differ (%.100s is there twice)",
                             topics[i]);
}

/* A key goes into a header: no control bytes, no spaces. */
static bool is_token(const char *text)
{
    for (; *text; text++)
        if (*text <= ' ' || *text > '~')
            return false;
    return true;
}

static void require_key(struct loader *l, const struct provider_config *p)
{
    CLEANUP(free_ptr) char *path = xasprintf("providers.%s.api_key", p->name);
    if (*p->api_key && !is_token(p->api_key))
        config_error(l, "configuration", path, "must be printable ASCII without spaces");
    if (*p->api_key || *p->api_key_file)
        return;
    if (strcmp(p->name, "daytona") == 0)
        config_error(l, "configuration", path,
                     "is missing: set DAYTONA_API_KEY or DAYTONA_API_KEY_FILE, or api_key_file in "
                     "the file");
    else
        config_error(l, "configuration", path, "is missing: set providers.%s.api_key_file",
                     p->name);
}

static void check_providers(struct loader *l, bool client)
{
    struct config *cfg = l->cfg;
    for (size_t i = 0; i < cfg->n_providers; i++) {
        struct provider_config *p = &cfg->providers[i];
        for (size_t n = strlen(p->api_url); p->api_url[n - 1] == '/'; n--)
            p->api_url[n - 1] = '\0';
        if (config_find_provider(cfg, p->name, strlen(p->name)) != p)
            config_error(l, "configuration", "providers", "has two called %s", p->name);
        if (!client)
            require_key(l, p);
    }
}

/* An archived sandbox is never deleted by itself: deleting alone moves archiving behind it. */
static void order_intervals(struct config *cfg)
{
    int auto_delete = cfg->sandbox.auto_delete_minutes;
    const struct key *archive =
        config_find(config_keys, config_n_keys, "sandbox.auto_archive_minutes");
    char text[16];
    snprintf(text, sizeof text, "%d", cfg->sandbox.auto_archive_minutes);
    if (auto_delete > 0 && strcmp(text, archive->otherwise) == 0)
        cfg->sandbox.auto_archive_minutes = auto_delete + 60;
}

void config_complete(struct loader *l, bool client)
{
    read_secrets(l);
    check_fleet_name(l);
    check_topics(l);
    check_providers(l, client);
    order_intervals(l->cfg);
}
