/* Where a record stands: "topic/partition/offset". Events name their job by it. Pure. */
#ifndef WORKER_CTL_PLACE_H
#define WORKER_CTL_PLACE_H

#include "common/base.h"

struct place {
    const char *topic; /* borrowed, topic_len bytes */
    size_t topic_len;
    int32_t partition;
    int64_t offset;
};

/* What follows behind another slash (a progress event's time) is passed over. False: it is none, or
 * text is NULL. */
MUST_USE bool place_read(const char *text, struct place *out);

bool place_is_in(const struct place *, const char *topic);

/* Do both stand in one partition, so that their offsets can be compared? */
bool place_is_beside(const struct place *, const struct place *);

/* Is ms later by more than the clocks of those who wrote the records may differ (a minute)? Offsets
 * begin anew with a topic that was deleted and made again, and only times tell then. A record may
 * have no time (0): false. */
bool is_long_after(uint64_t ms, uint64_t other_ms);

/* "topic/partition/offset". Owned. */
char *place_text(const char *topic, int64_t partition, int64_t offset);

/* The job that an event's ce_id names: the place alone; any other text as it is, NULL of NULL.
 * Owned. */
char *place_of_job(const char *ce_id);

/* "3" or "3/41": offset -1 when there is none. */
MUST_USE bool place_read_short(const char *text, int32_t *partition, int64_t *offset);

#endif
