/* What the tests of records that kill are written in: an owner's last words in, ours out. */
#ifndef TESTS_UNIT_CORE_FIXTURE_TRIAL_H
#define TESTS_UNIT_CORE_FIXTURE_TRIAL_H

#include "tests/unit/core/fixture.h"
#include "worker/core/offsets.h"

#define NOBODY (-1) /* no suspect */

/* A world in which nothing is assigned and batches without messages wait for their outcome too. */
int trial_setup(void **world);
#define TRIAL_TEST(fn) cmocka_unit_test_setup_teardown(fn, trial_setup, world_teardown)

extern struct offsets state; /* what an owner left behind */
void assign_state(struct world *, int32_t partition);
void assign_as(struct world *, int32_t partition, int64_t offset, uint8_t strikes, int64_t suspect);

/* Assigned from an owner that left so many strikes, or from nobody: this one's is told. */
void take_over(struct world *, int32_t partition, int64_t offset, uint8_t strikes);
void take_first(struct world *, int32_t partition, int64_t offset);
/* Its strikes are told, and then who is tried first. */
void told_trial(struct world *, int32_t partition, unsigned strikes, int64_t suspect);

/* What the batch under way leaves behind of the partition. */
void expect_word(struct world *, int32_t partition, unsigned strikes, int64_t suspect);
void expect_limit(struct world *, int32_t partition, int64_t limit);

/* A batch without messages comes that says so, and goes through. */
void told(struct world *, int32_t partition, unsigned strikes, int64_t suspect);
void told_limit(struct world *, int64_t limit); /* of partition 0 */
void told_nothing(struct world *);

#endif
