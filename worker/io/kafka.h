/* What the consumer, the publisher and sessionctl share of librdkafka: handles configured from
 * struct config, property checks, log and error texts. Knows no record and no batch. */
#ifndef WORKER_IO_KAFKA_H
#define WORKER_IO_KAFKA_H

#include <librdkafka/rdkafka.h>

#include "common/buf.h"
#include "common/config.h"

enum kafka_role {
    KAFKA_CONSUMER,      /* member of the group */
    KAFKA_TRANSACTIONAL, /* producer with transactional.id "<group>-<instance>" */
    KAFKA_IDEMPOTENT,    /* producer that retries for ever */
    KAFKA_PLAIN          /* producer whose records may be lost; also for admin requests */
};

#define KAFKA_TRANSACTION_MS 15000 /* transaction.timeout.ms, unless the user says otherwise */
#define KAFKA_VERSION(major, minor, patch) (((major) << 24) | ((minor) << 16) | ((patch) << 8))

/* kafka.properties: one line per mistake appended to errors ("kafka.properties: …"): a name that
 * librdkafka does not know, a value it refuses, alone or beside the others, or a property that is
 * not the user's to set. True when there is none. Opens no connection. */
MUST_USE bool kafka_check(const struct config *, struct buf *errors);

/* Our settings, the user's properties over them, log lines into common/log. instance is the client
 * id. The caller owns it until kafka_new. Properties that kafka_check refuses are left out. */
rd_kafka_conf_t *kafka_conf(const struct config *, enum kafka_role, const char *instance);

/* Takes conf over. NULL when librdkafka refuses it (said in the log as an error). */
rd_kafka_t *kafka_new(enum kafka_role, rd_kafka_conf_t *conf);

/* Ends a handle without blocking for longer than 5 s: one that does not end by then is left to the
 * end of the process. A consumer does not leave its group by this. NULL allowed. */
void kafka_destroy(rd_kafka_t *);

/* True when such a one was left: its threads go on, so the process must end by _exit(2), which
 * takes nothing away from under them. */
bool kafka_left_behind(void);

/* The numeric property of a handle; otherwise when it has none. */
int64_t kafka_number(const rd_kafka_t *, const char *name, int64_t otherwise);

/* Says once at start which librdkafka runs, and warns of versions that hang in transactions. */
void kafka_log_version(const struct config *);

/* ---- errors ---- */

struct kafka_said { /* what has been said lately; zeroed at first; of one thread */
    struct {
        rd_kafka_resp_err_t err;
        uint64_t until_ns;
    } last[8];
};

/* Counts the error and says it in one line, with what to do about it where we know that; the same
 * error again only after 30 s. doing: "reading the jobs topic". detail may be NULL. */
void kafka_error(struct kafka_said *, rd_kafka_resp_err_t err, const char *doing,
                 const char *detail);

/* True when the error says that this member's generation is over: nothing can be committed in it.
 */
bool kafka_generation_over(rd_kafka_resp_err_t err);

#endif
