/* Inside of config: the table of keys, and what its readers and its printer share. Include only
 * from common/config*.c. */
#ifndef COMMON_CONFIG_TABLE_H
#define COMMON_CONFIG_TABLE_H

#include "common/config.h"

enum key_kind {
    KEY_TEXT,   /* char *; one of names if there are names */
    KEY_INT,    /* int, min to max */
    KEY_REAL,   /* double, min to max */
    KEY_FLAG,   /* bool; false and true, or the two names */
    KEY_CHOICE, /* an enum whose values index names */
    KEY_LIST,   /* char ** and a size_t */
    KEY_FILE,   /* char * with a path, and char * with what the file holds: a secret */
};

struct key {
    const char *path;
    enum key_kind kind;
    size_t at, at2;        /* offsets in struct config or struct provider_config */
    const char *otherwise; /* default, as one would type it behind -s */
    double min, max;
    const char *const *names;
    size_t n_names;
    const char *(*check)(const char *text); /* NULL, or what is allowed: "must be …" */
    const char *help;                       /* a sentence */
};

extern const struct key config_keys[];
extern const size_t config_n_keys;
extern const struct key config_provider_keys[]; /* of one entry of providers */
extern const size_t config_n_provider_keys;

/* A value on its way to a key. VALUE_TEXT (from -s, the environment, a default) suits every kind.
 */
struct value {
    enum { VALUE_TEXT, VALUE_STRING, VALUE_NUMBER, VALUE_BOOL, VALUE_LIST } type;
    const char *text;
    const char *const *items; /* of a list */
    size_t n_items;
};

struct loader {
    struct config *cfg;
    struct buf *errors;
    bool failed;
};

/* One line in errors: "<origin>: <path> <message>". */
void config_error(struct loader *, const char *origin, const char *path, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
void config_unknown(struct loader *, const char *origin, const char *path);

/* Sets key k of base (the config or a provider). path is the whole one, for messages. */
void config_set(struct loader *, const struct key *k, void *base, const char *path,
                const char *origin, const struct value *v);

/* Values come in: */
void *config_field(void *base, size_t at);
void config_replace(char **text, const char *by);
void config_add_item(char ***items, size_t *n, const char *text, size_t len);
void config_free_list(char ***items, size_t *n);                        /* wipes, frees, empties */
void config_set_defaults(const struct key *keys, size_t n, void *base); /* base zeroed before */
struct provider_config *config_add_provider(struct config *);           /* with its defaults */

const struct key *config_find(const struct key *keys, size_t n, const char *path);
struct provider_config *config_find_provider(const struct config *, const char *name, size_t len);

void config_load_file(struct loader *, const char *file);
void config_complete(struct loader *, bool client); /* secrets, and what holds between keys */

#endif
