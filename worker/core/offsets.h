/* Which offsets of a partition are done: a watermark, and a bitmap of those done above it. Its text
 * form travels as the metadata of the committed offset and always fits Kafka's 4096 characters. */
#ifndef WORKER_CORE_OFFSETS_H
#define WORKER_CORE_OFFSETS_H

#include "common/base.h"
#include "common/buf.h"

#define OFFSETS_WINDOW 24000 /* widest distance from the watermark to an offset above it */
#define OFFSETS_TEXT_MAX 4096
#define OFFSETS_RING 32768 /* bits kept; a power of two > the window */

struct offsets {
    int64_t watermark;       /* all below it are done; it is not */
    int64_t high;            /* one more than the highest done offset, >= watermark */
    int64_t highest_started; /* highest offset whose CREATE was sent; -1: none. A hint. */
    /* Of the records that kill, see trial.c. */
    int64_t suspect; /* the first undone record at or above it may have done so; -1: none */
    int64_t limit;   /* no record from here on was read by the last owner; -1: not said */
    uint8_t strikes; /* owners in a row that ended without goodbye, the last one included */
    uint64_t
        ring[OFFSETS_RING / 64]; /* bit (offset % OFFSETS_RING), for watermark < offset < high */
};

void offsets_init(struct offsets *, int64_t watermark);

/* Reads the metadata committed together with `watermark`. False: not ours, damaged, or of another
 * watermark; o is then as after offsets_init. "" or NULL is valid and means nothing above it. */
MUST_USE bool offsets_decode(struct offsets *, int64_t watermark, const char *text);
void offsets_encode(const struct offsets *, struct buf *out);

bool offsets_is_done(const struct offsets *, int64_t offset);
bool offsets_has_room(const struct offsets *, int64_t offset); /* within the window? */

/* offset is done now; the watermark advances over what is contiguous. Must lie within the window.
 */
void offsets_done(struct offsets *, int64_t offset);

/* Nothing will ever arrive between from and to (to excluded): gaps are done, not holes. As far as
 * the window allows; returns where it ended: to, or what is left for when the watermark moves. */
int64_t offsets_gap(struct offsets *, int64_t from, int64_t to);

uint64_t offsets_done_above(const struct offsets *); /* how many are done above the watermark */

#endif
