/* The story of one session: its jobs, and of each what has become of it. Pure.
 *
 * Records and pages come in any order; what is told is in order. A job whose record is gone is told
 * all the same, by its events. */
#ifndef WORKER_CTL_STORY_H
#define WORKER_CTL_STORY_H

#include <cjson/cJSON.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/wire.h"

enum scene_kind { SCENE_PROGRESS, SCENE_RESULT, SCENE_LETTER };
struct scene {
    enum scene_kind kind;
    uint64_t time_ms;
    cJSON *event;        /* owned; NULL: a letter */
    char *text;          /* owned; JSON as it came, or of the letter */
    char *code, *detail; /* owned; of a letter; may be NULL */
};

struct chapter {
    char *job;           /* owned; "topic/partition/offset" */
    char *what;          /* owned; "start-session", what it asks for; NULL: its record is gone */
    char *again;         /* owned; where it stood at first, if it is a replay; NULL: it is not */
    uint64_t time_ms;    /* of the record, else of the first scene */
    uint64_t timeout_ms; /* of the job as a whole; 0: not known */
    struct scene *scenes;
    size_t n, cap;
    const cJSON *flight, *page; /* borrowed; a worker has it in hand; NULL: none that was asked */
};

struct story {
    const char *session_id;   /* borrowed */
    struct chapter *chapters; /* owned */
    size_t n, cap;
    const cJSON *destroy; /* borrowed; its sandbox is being destroyed */
};
void story_done(struct story *);

void story_job(struct story *, const struct record *, const struct config *);
void story_event(struct story *, const struct record *); /* of the results or progress topic */
void story_letter(struct story *, const struct record *);
void story_page(struct story *, const cJSON *page); /* a worker's; borrowed until story_done */

void story_sort(struct story *); /* before it is told */

/* How it stands: "ready" …, the word of an event; "in-progress", "waiting" (no result, and no
 * worker that was asked has it), "refused" (a dead letter alone). There is a chapter. */
const char *story_state(const struct story *);
const cJSON *story_result(const struct chapter *);  /* its event; NULL: none yet */
const char *chapter_advice(const struct chapter *); /* what to do now; NULL: it has not failed */

/* How long each step took: of a ready event exactly, else as far as progress tells, up to now if it
 * is in flight. False: nothing tells. */
MUST_USE bool chapter_steps(const struct chapter *, uint64_t now_ms, uint64_t steps_ms[N_STEPS],
                            bool *exactly);

/* ---- telling it: story_text.c ---- */

void story_text(const struct story *, uint64_t now_ms, bool colour, struct buf *out);
void story_json(const struct story *, void (*each)(void *arg, const struct buf *json), void *arg);

#endif
