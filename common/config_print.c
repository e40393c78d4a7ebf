/* config_print: a configuration as the text of a worker.cfg. See config.h.
 *
 * The printer walks the table, so what is printed can be read back. Of secrets it shows the file
 * that holds them, and *** where a value came from the environment. */
#include <stdlib.h>
#include <string.h>

#include "common/config_table.h"

struct printer {
    struct buf *out;
    bool help; /* every key's sentence above it */
};

static const void *field(const void *base, size_t at)
{
    return (const char *)base + at;
}

static void print_escaped(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '"' || text[i] == '\\')
            buf_addf(out, "\\%c", text[i]);
        else if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            buf_addf(out, "\\x%02x", (unsigned char)text[i]);
        else
            buf_addc(out, text[i]);
    }
}

static void print_string(struct buf *out, const char *text)
{
    buf_addc(out, '"');
    print_escaped(out, text, strlen(text));
    buf_addc(out, '"');
}

/* librdkafka's sensitive properties are shown by name only. */
static void print_item(struct buf *out, const char *text)
{
    static const char *const sensitive[] = {"password",           "secret", "key.pem", "sasl.jaas",
                                            "oauthbearer.config", "ssl.key"};
    size_t n = strcspn(text, "=");
    for (size_t i = 0; text[n] && i < ARRAY_LEN(sensitive); i++) {
        const char *at = strstr(text, sensitive[i]);
        if (at && at < text + n) {
            buf_addc(out, '"');
            print_escaped(out, text, n);
            buf_adds(out, "=***\"");
            return;
        }
    }
    print_string(out, text);
}

static void print_list(struct buf *out, char *const *items, size_t n)
{
    buf_adds(out, "[ ");
    for (size_t i = 0; i < n; i++) {
        buf_adds(out, i ? ", " : "");
        print_item(out, items[i]);
    }
    buf_adds(out, n ? " ]" : "]");
}

static void print_real(struct buf *out, double value)
{
    char text[32];
    struct buf b;
    buf_init(&b, sizeof text);
    buf_addf(&b, "%.6f", value); /* libconfig wants the point */
    size_t n = b.len;
    while (b.data[n - 1] == '0' && b.data[n - 2] != '.')
        n--;
    buf_add(out, b.data, n);
    buf_done(&b);
}

static void print_flag(struct buf *out, const struct key *k, bool value)
{
    if (k->n_names)
        print_string(out, k->names[value]);
    else
        buf_adds(out, value ? "true" : "false");
}

static void print_value(struct buf *out, const struct key *k, const void *base)
{
    const void *at = field(base, k->at);
    switch (k->kind) {
    case KEY_TEXT:
    case KEY_FILE:
        print_string(out, *(char *const *)at);
        break;
    case KEY_INT:
        buf_addf(out, "%d", *(const int *)at);
        break;
    case KEY_REAL:
        print_real(out, *(const double *)at);
        break;
    case KEY_FLAG:
        print_flag(out, k, *(const bool *)at);
        break;
    case KEY_CHOICE:
        print_string(out, k->names[*(const int *)at]);
        break;
    case KEY_LIST:
        print_list(out, *(char *const *const *)at, *(const size_t *)field(base, k->at2));
        break;
    }
}

static void print_key(const struct printer *p, const struct key *k, const void *base,
                      const char *indent)
{
    const char *dot = strchr(k->path, '.');
    if (p->help)
        buf_addf(p->out, "%s# %s\n", indent, k->help);
    buf_addf(p->out, "%s%s = ", indent, dot ? dot + 1 : k->path);
    print_value(p->out, k, base);
    buf_addc(p->out, ';');
    const char *const *secret = k->kind == KEY_FILE ? field(base, k->at2) : NULL;
    if (secret && **secret)
        buf_adds(p->out, " # ***");
    buf_addc(p->out, '\n');
}

static void print_providers(const struct printer *p, const struct config *cfg)
{
    if (p->help)
        buf_adds(p->out,
                 "\n# Where sandboxes are made; the first one serves jobs that name none.\n");
    buf_adds(p->out, "providers = (");
    for (size_t i = 0; i < cfg->n_providers; i++) {
        buf_adds(p->out, i ? ", {\n" : " {\n");
        for (size_t j = 0; j < config_n_provider_keys; j++)
            print_key(p, &config_provider_keys[j], &cfg->providers[i], "    ");
        buf_adds(p->out, "}");
    }
    buf_adds(p->out, " );\n");
}

static size_t group_length(const char *path)
{
    const char *dot = strchr(path, '.');
    return dot ? (size_t)(dot - path) : 0;
}

static void print_all(const struct printer *p, const struct config *cfg)
{
    const char *group = "";
    for (size_t i = 0; i < config_n_keys; i++) {
        const char *path = config_keys[i].path;
        size_t n = group_length(path);
        if (n != group_length(group) || strncmp(path, group, n) != 0) {
            buf_addf(p->out, "%s%s%.*s = {\n", *group ? "};\n" : "", p->help ? "\n" : "", (int)n,
                     path);
            group = path;
        }
        print_key(p, &config_keys[i], cfg, n ? "    " : "");
    }
    buf_adds(p->out, "};\n");
    print_providers(p, cfg);
}

void config_print(const struct config *cfg, struct buf *out)
{
    struct printer p = {out, false};
    print_all(&p, cfg);
}

void config_print_defaults(struct buf *out)
{
    struct printer p = {out, true};
    struct config cfg = {0};
    config_set_defaults(config_keys, config_n_keys, &cfg);
    config_add_provider(&cfg);
    buf_adds(
        out,
        "# worker.cfg: every key with its default. Only brokers and a Daytona key are needed;\n"
        "# units are in the names.\n"
        "#\n"
        "# A key can also be given by -s KEY=VALUE (-s jobs.attempts=5; lists: a,b,c) and by the\n"
        "# environment (SESSION_WORKER_JOBS_ATTEMPTS=5; for a secret also the name without _FILE\n"
        "# and the value itself). Those of a provider are called providers.NAME.KEY there.\n"
        "# For the provider called daytona DAYTONA_API_KEY, DAYTONA_API_KEY_FILE, DAYTONA_API_URL\n"
        "# and DAYTONA_TARGET do as well. Order: -s, then environment, then this file.\n"
        "\n");
    print_all(&p, &cfg);
    config_done(&cfg);
}
