/* The memory of a world, which can be put back to what it was. */
#ifndef SIM_EXPLORE_ARENA_H
#define SIM_EXPLORE_ARENA_H

#include <stddef.h>

/* From here on what the project's own code allocates comes from the arena. Before that: nothing of
 * it may live on. */
void arena_begin(void);

/* Writes all that the world is to `to`; returns how many bytes. */
size_t arena_save(void *to);
/* The world is what it was when that was written. */
void arena_restore(const void *from);
/* What arena_save would write, at most. */
size_t arena_size(void);

/* Memory that no restore touches, zeroed; pages come as they are used. Never freed. */
void *arena_outside(size_t size);

#endif
