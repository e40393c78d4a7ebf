/* Events as people see them: one line each, safe for a terminal. Pure. */
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

/* Where a ready session's server is, else its first exposed port; NULL: nowhere. Borrowed. */
const char *event_url(const cJSON *event);

/* Its word (READY) in its colour, and what follows it. The event is not foreign. */
void event_word(const cJSON *event, bool colour, struct buf *out); /* eight characters wide */
void event_detail(const cJSON *event, struct buf *out);

/* Time, session, what happened: appended without a newline. The event is not foreign. */
void event_text(const cJSON *event, bool colour, struct buf *out);

#endif
