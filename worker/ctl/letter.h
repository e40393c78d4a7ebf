/* Dead letters: what one says of itself, how it is shown, and the job that it becomes again. Pure.
 *
 * Its headers were written by a worker, or by anybody: each of them may be missing or nonsense. */
#ifndef WORKER_CTL_LETTER_H
#define WORKER_CTL_LETTER_H

#include "common/buf.h"
#include "common/config.h"
#include "common/wire.h"
#include "worker/ctl/table.h"

struct letter {
    const struct record *record; /* borrowed */
    const char *code, *message;  /* borrowed of it; NULL: it does not say */
    char *session_id;            /* owned; NULL: none */
    char *origin; /* owned; "topic/partition/offset" of the record that failed; NULL: unknown */
    const char *first; /* borrowed; the same of the first failure, when it has been replayed */
    bool cut;          /* it was too large for its topic: the end of its value is missing */
};
void letter_read(struct letter *, const struct record *);
void letter_done(struct letter *);

/* ---- how it is shown ---- */

#define LETTER_COLUMNS 6
extern const char *const letter_heads[LETTER_COLUMNS];
void letter_row(const struct letter *, uint64_t now_ms, struct table *);

/* All of it in lines, its value cut when it is long. */
void letter_text(const struct letter *, uint64_t now_ms, struct buf *out);

/* An object; with `whole` also key, headers and value in base64. */
void letter_json(const struct letter *, bool whole, struct buf *out);

/* ---- what becomes of it ---- */

/* Why it cannot be sent again; NULL: it can. Static. */
const char *letter_unsendable(const struct letter *);

/* The job as it was: key, value and headers without those that the dead letter was given, and where
 * it first failed. The message is the caller's to message_done. */
void letter_job(const struct letter *, struct message *out);

/* Would a worker of this configuration refuse the job? Its sentence, owned; NULL: no. */
char *letter_refusal(const struct letter *, const struct config *);

#endif
