/* A record of any topic as we read it: a copy with its headers, and whose session it is about. */
#ifndef WORKER_CTL_RECORD_H
#define WORKER_CTL_RECORD_H

#include <librdkafka/rdkafka.h>

#include "common/wire.h"

/* All of it copied. The caller's to record_free. */
struct record *record_new(rd_kafka_message_t *);
void record_free(struct record *); /* NULL allowed */

/* The last header of that name as text (owned by the record, NUL-terminated); NULL: none, or it
 * holds a NUL. */
const char *record_header(const struct record *, const char *name);

/* The session that it names: in its key, else in its value's session_id (of a structured
 * CloudEvent: in data's). Owned; NULL: none. Any bytes but NUL. */
char *record_session(const struct record *);

/* Is it about that session? Cheaper than the above. */
bool record_is_about(const struct record *, const char *session_id);

#endif
