/* Events as people and scripts see them: one line each, safe for a terminal.
 *
 * What stands in a topic was written by others: no byte of it may steer a terminal, whether it is
 * shown as text or as JSON. Pure. */
#ifndef WORKER_CTL_EVENT_H
#define WORKER_CTL_EVENT_H

#include <cjson/cJSON.h>

#include "common/base.h"
#include "common/buf.h"

enum event_end {
    EVENT_FOREIGN,  /* no event of ours */
    EVENT_UNDERWAY, /* progress: more will follow */
    EVENT_GOOD,     /* ready, stopped, deleted */
    EVENT_BAD,      /* failed */
};

/* What kind of event the tree is (NULL: foreign). */
enum event_end event_end(const cJSON *event);

/* Time, session, what happened: appended without a newline. The event is not foreign. */
void event_text(const cJSON *event, bool colour, struct buf *out);

/* The JSON text as one line: same meaning, no raw control byte. No newline at the end. */
void event_json(const char *text, size_t len, struct buf *out);

/* Appends text with control characters (C0, DEL, C1, changes of writing direction) and broken UTF-8
 * as \xNN or \u{NNNN}. */
void add_safe(struct buf *out, const char *text, size_t len);

#endif
