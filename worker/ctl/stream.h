/* Events that are still coming, put into the order in which they happened: results and progress
 * come by two topics, and neither waits for the other. Pure. */
#ifndef WORKER_CTL_STREAM_H
#define WORKER_CTL_STREAM_H

#include <cjson/cJSON.h>

#include "common/base.h"

struct moment;
struct ended;
struct stream {
    struct moment *moments; /* owned; came, not told yet */
    size_t n, cap;
    struct ended *ended; /* owned; the jobs whose results were told lately */
};
void stream_done(struct stream *);

/* A record: its text, its ce_id (NULL: none), and when it was written, which counts where the event
 * tells no time. All copied. */
void stream_add(struct stream *, const char *text, size_t len, const char *job, uint64_t time_ms);

/* Tells what came, by time, and forgets it. Progress of a job whose result was told is left out.
 * event is NULL when the text is no JSON. */
void stream_tell(struct stream *,
                 void (*each)(void *arg, const cJSON *event, const char *text, size_t len),
                 void *arg);

#endif
