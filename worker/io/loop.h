/* The event loop: libevent behind names of our own. Monotonic nanoseconds everywhere. */
#ifndef WORKER_IO_LOOP_H
#define WORKER_IO_LOOP_H

#include "common/base.h"

struct event_base;
struct loop;
struct timer;
struct watch;

struct loop *loop_new(void);
void loop_free(struct loop *); /* asserts that no timer or watch is left */
void loop_run(struct loop *);  /* until loop_stop */
void loop_stop(struct loop *);
struct event_base *loop_base(struct loop *); /* for evhttp */

uint64_t loop_now_ns(void);  /* CLOCK_MONOTONIC, read anew */
uint64_t loop_boot_ns(void); /* CLOCK_BOOTTIME: goes on while the machine sleeps */
uint64_t loop_wall_ms(void); /* CLOCK_REALTIME */

/* One-shot timers; fn runs in the loop. Arming again moves it. */
struct timer *timer_new(struct loop *, void (*fn)(void *arg), void *arg);
void timer_free(struct timer *);                /* NULL allowed; also from inside fn */
void timer_arm(struct timer *, uint64_t at_ns); /* NEVER: disarmed */

/* File descriptors. fn gets which of read/write is ready. The fd stays the caller's. */
struct watch *watch_new(struct loop *, int fd, void (*fn)(void *arg, bool readable, bool writable),
                        void *arg);
void watch_set(struct watch *, bool read, bool write);
void watch_free(struct watch *); /* NULL allowed; also from inside fn; before the fd is closed */

/* An eventfd that other threads (or librdkafka) write 1 to; fn runs in the loop, already drained.
 */
struct wake;
struct wake *wake_new(struct loop *, void (*fn)(void *arg), void *arg);
int wake_fd(const struct wake *);
void wake_send(struct wake *); /* from any thread */
void wake_free(struct wake *);

/* Signals. */
void loop_signal(struct loop *, int signo, void (*fn)(void *arg, int signo), void *arg);

/* fn runs once per loop turn, after its callbacks: graveyards are emptied there. At most 8. */
void loop_each_turn(struct loop *, void (*fn)(void *arg), void *arg);

/* Takes that hook away again; not from inside a hook. */
void loop_no_more_turns(struct loop *, void (*fn)(void *arg), void *arg);

#endif
