/* Descriptors 0 to 2, which a parent may have closed: without them the first files that a program
 * opens would get these numbers, and log lines would be written into them. */
#ifndef COMMON_STDFDS_H
#define COMMON_STDFDS_H

/* The first thing in main. A missing one becomes /dev/null, opened the wrong way round: reading
 * stdin and writing to stdout or stderr still fail (EBADF), as whoever closed them may expect.
 * Ends the process with 1 when that cannot be done. */
void stdfds_open(void);

#endif
