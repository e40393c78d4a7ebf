/* The version of the programs, and of nothing else. */
#ifndef COMMON_VERSION_H
#define COMMON_VERSION_H

#define VERSION "0.1.0"

#endif
