/* How many calls the process's limit of open files (RLIMIT_NOFILE) has room for. */
#ifndef WORKER_IO_FILES_H
#define WORKER_IO_FILES_H

#include "common/base.h"

uint64_t files_limit(void); /* the one in force; UINT64_MAX: none */

/* How many of the wanted calls may be out at once; 0: not even a handful, or nothing is wanted. */
unsigned files_for_calls(uint64_t limit, unsigned wanted);

/* The limit that so many calls need. */
uint64_t files_needed(unsigned calls);

/* The least limit that files_for_calls has an answer to. */
#define FILES_LEAST files_needed(FILES_FEWEST_CALLS)
#define FILES_FEWEST_CALLS 8

#endif
