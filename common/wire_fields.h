/* Inside of wire: from the JSON of a job to its fields. Include only from common/wire*.c. */
#ifndef COMMON_WIRE_FIELDS_H
#define COMMON_WIRE_FIELDS_H

#include "common/json.h"
#include "common/wire.h"

/* Reads every member of the job that `body` is but type, version, session_id and job_id into job,
 * whose type is set and which is zeroed otherwise. The first fault is in body->error afterwards. */
void wire_read_fields(struct json_reader *body, const struct config *cfg, struct job *job,
                      unsigned *unknown);

/* ---- for wire_fields.c and wire_spec.c ---- */

#define WIRE_NAME_MAX 128 /* bytes of a name: tenant, snapshot, target … */
#define ALNUM "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

struct fields { /* all borrowed */
    const struct config *cfg;
    struct job *job;
    unsigned *unknown;
    struct json_error *error;
};

void wire_server_defaults(struct job *job);
void wire_read_sandbox(struct fields *f, struct json_reader *top);
void wire_read_server(struct fields *f, struct json_reader *top);
void wire_read_id(struct fields *f, struct json_reader *sandbox); /* sandbox.id */

/* Replaces *out by a copy of the text, unless that is absent or empty. */
void wire_take(struct json_reader *r, const char *name, size_t max, char **out);
void wire_take_int(struct json_reader *r, const char *name, int min, int max, int *out);

/* The object called name as a reader of its own; its members beyond `names` are noted. */
struct json_reader wire_enter(struct fields *f, struct json_reader *r, const char *name,
                              const char *path, const char *const *names, size_t n);

/* 1 to max bytes, all of them among `allowed`. */
bool wire_matches(const char *text, size_t max, const char *allowed);
bool wire_is_token(const char *text); /* fit for a URL or a header: printable ASCII, no spaces */
void wire_require_absolute(struct json_reader *r, const char *name, const char *path);
void wire_add_pair(struct pair **pairs, size_t *n, const char *name,
                   const char *value); /* in place */

/* Counts and names the members of the reader's object that are not among names. */
void wire_note_unknown(struct fields *f, const struct json_reader *r, const char *const *names,
                       size_t n);

/* Calls tell with each of the job's secrets (NULL for one that is not there). */
void wire_each_secret(const struct job *job, void (*tell)(const char *));

#endif
