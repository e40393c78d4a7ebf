/* Jobs made from a command line: a file as the base, options over it, env and key from files.
 *
 * Knows the shape of no job: which option sets which member stands in the verb's option table. */
#ifndef WORKER_CTL_JOB_H
#define WORKER_CTL_JOB_H

#include <cjson/cJSON.h>

#include "common/config.h"
#include "worker/ctl/options.h"

#define JOB_ERROR_SIZE 300

/* Sets the member at path ("sandbox.snapshot"), making objects on the way. Takes item over, also
 * when it fails, which it does when something on the way is no object. */
MUST_USE bool job_set(cJSON *job, const char *path, cJSON *item, char error[JOB_ERROR_SIZE]);

/* Every option that was given and has a path. */
MUST_USE bool job_set_options(cJSON *job, const struct option_table *, const void *args,
                              char error[JOB_ERROR_SIZE]);

/* Lines of an env file into job.env: NAME=VALUE, NAME alone (value from our own environment),
 * blank lines, # comments, an `export ` before the name. A value in '...' is literal, one in "..."
 * knows \n \t \" \\ \$; a bare one ends before " #". The error names the line, never the value. */
MUST_USE bool job_add_env_text(cJSON *job, const char *text, char error[JOB_ERROR_SIZE]);

/* One --env word: NAME=VALUE as it is, or NAME alone. */
MUST_USE bool job_add_env_word(cJSON *job, const char *word, char error[JOB_ERROR_SIZE]);

/* What a worker would say to this record. */
struct job_verdict {
    bool ok;
    char *session_id; /* owned; what the record's key must be; NULL: it names none */
    char *warning;    /* owned; which of its members a worker ignores; NULL: none */
    char why[JOB_ERROR_SIZE];
};
bool job_check(const char *text, size_t len, const struct config *, struct job_verdict *out);
void job_verdict_done(struct job_verdict *);

#endif
