/* explore_arena: one process that goes back in time.
 *
 * A search comes back to every state as often as there are choices in it. A core and the model
 * cannot be copied field by field, so the memory is: the linker gives the project's own objects
 * this allocator (--wrap; the objects are those that ship), all they allocate lies in one arena at
 * a fixed place, and a state is the arena up to its highest use and the program's own variables.
 * Measured on the world of explore_exhaustive.c: about 40 us to save and go back, where a fork with
 * its copied pages took 250 to 500 us and running the way there again 600 us on average.
 *
 * The libraries keep their own memory (what cJSON makes lives in our structures, so it is told to
 * use the arena). What they allocate does not outlive a call.
 *
 * Blocks are powers of two and go back to a list of their size. The lists lie in the arena, so they
 * go back in time as well. */
#include "tests/sim/explore_arena.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base.h"

#define ARENA_MAX ((size_t)64 << 20)
#define SMALLEST 5 /* 32 bytes, the header among them */
#define SIZES 27

struct block {
    size_t size;        /* log2 */
    struct block *next; /* while it is free */
};
#define HEADER                                                                                     \
    sizeof(struct block) /* then the memory that is given away, aligned for everything             \
                          */

struct arena {
    size_t used;
    struct block *free[SIZES];
};

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void __real_free(void *);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
void __wrap_free(void *);
char *__wrap_strdup(const char *);
int __wrap_vasprintf(char **, const char *, va_list) PRINTF_LIKE(2, 0);
int __wrap___vasprintf_chk(char **, int, const char *, va_list) PRINTF_LIKE(3, 0);

/* The program's variables, as the linker lays them out: .data and .bss. */
extern char __data_start[], _end[];

static struct arena *arena; /* NULL: the usual memory */

void *arena_outside(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    ASSERT(p != MAP_FAILED);
    return p;
}

void arena_begin(void)
{
    static cJSON_Hooks hooks = {__wrap_malloc, __wrap_free};
    arena = arena_outside(ARENA_MAX);
    arena->used = (sizeof *arena + 63) / 64 * 64;
    cJSON_InitHooks(&hooks);
}

/* ---- the allocator ---- */

static bool is_ours(const void *p)
{
    return arena && (const char *)p >= (char *)arena && (const char *)p < (char *)arena + ARENA_MAX;
}

static size_t fitting(size_t bytes)
{
    size_t size = SMALLEST;
    while (((size_t)1 << size) < bytes + HEADER)
        size++;
    ASSERT(size < SIZES);
    return size;
}

static void *take(size_t bytes)
{
    size_t size = fitting(bytes);
    struct block *b = arena->free[size];
    if (b) {
        arena->free[size] = b->next;
    } else {
        b = (struct block *)(void *)((char *)arena + arena->used);
        arena->used += (size_t)1 << size;
        ASSERT(arena->used <= ARENA_MAX);
    }
    b->size = size;
    return (char *)b + HEADER;
}

static struct block *block_of(void *p)
{
    return (struct block *)(void *)((char *)p - HEADER);
}

void *__wrap_malloc(size_t n)
{
    return arena ? take(n) : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    size_t bytes;
    if (!arena)
        return __real_calloc(n, size);
    ASSERT(!__builtin_mul_overflow(n, size, &bytes));
    return memset(take(bytes), 0, bytes);
}

void __wrap_free(void *p)
{
    if (!is_ours(p)) {
        __real_free(p);
        return;
    }
    struct block *b = block_of(p);
    b->next = arena->free[b->size];
    arena->free[b->size] = b;
}

void *__wrap_realloc(void *p, size_t n)
{
    if (!arena || (p && !is_ours(p)))
        return __real_realloc(p, n);
    size_t had = p ? ((size_t)1 << block_of(p)->size) - HEADER : 0;
    if (p && n <= had)
        return p;
    void *to = take(n);
    if (p)
        memcpy(to, p, had);
    __wrap_free(p);
    return to;
}

char *__wrap_strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    return memcpy(__wrap_malloc(n), text, n);
}

int __wrap_vasprintf(char **out, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0)
        return n;
    *out = __wrap_malloc((size_t)n + 1);
    return vsnprintf(*out, (size_t)n + 1, fmt, ap);
}

int __wrap___vasprintf_chk(char **out, int flag, const char *fmt, va_list ap)
{
    (void)flag;
    return __wrap_vasprintf(out, fmt, ap);
}

/* ---- going back ---- */

/* The variables are mostly empty tables, so of them only the pages that hold something are written:
 * after the arena their number, then number and content of each. */
#define PAGE 4096

struct page {
    uint64_t number;
    char bytes[PAGE];
};

/* Word by word under a sanitizer, which keeps guards between variables and watches memcpy. */
#ifdef __SANITIZE_ADDRESS__
#define UNWATCHED __attribute__((no_sanitize("address")))
#else
#define UNWATCHED
#endif

UNWATCHED static void copy(void *to, const void *from, size_t n)
{
#ifdef __SANITIZE_ADDRESS__
    volatile uint64_t *t = to;
    const volatile uint64_t *f = from;
    for (size_t i = 0; i < n / sizeof *t; i++)
        t[i] = f[i];
    for (size_t i = n / sizeof *t * sizeof *t; i < n; i++)
        ((volatile char *)to)[i] = ((const volatile char *)from)[i];
#else
    memcpy(to, from, n);
#endif
}

UNWATCHED static bool is_blank(const char *bytes, size_t n)
{
#ifdef __SANITIZE_ADDRESS__
    size_t i = 0;
    while (i < n && !((const volatile char *)bytes)[i])
        i++;
    return i == n;
#else
    static const char nothing[PAGE];
    return memcmp(bytes, nothing, n) == 0;
#endif
}

static size_t variables(void)
{
    return (size_t)(_end - __data_start);
}

static size_t n_pages(void)
{
    return (variables() + PAGE - 1) / PAGE;
}

static size_t page_size(size_t number)
{
    return MIN((size_t)PAGE, variables() - number * PAGE);
}

size_t arena_size(void)
{
    return ARENA_MAX + sizeof(uint64_t) + n_pages() * sizeof(struct page);
}

size_t arena_save(void *to)
{
    size_t used = arena->used;
    uint64_t *n = (uint64_t *)(void *)((char *)to + used);
    struct page *page = (struct page *)(void *)(n + 1);
    copy(to, arena, used);
    *n = 0;
    for (size_t i = 0; i < n_pages(); i++) {
        if (is_blank(__data_start + i * PAGE, page_size(i)))
            continue;
        page[*n].number = i;
        copy(page[*n].bytes, __data_start + i * PAGE, page_size(i));
        ++*n;
    }
    return used + sizeof *n + *n * sizeof *page;
}

static void blank(char *bytes, size_t n)
{
    static const char nothing[PAGE];
    if (!is_blank(bytes, n))
        copy(bytes, nothing, n);
}

void arena_restore(const void *from)
{
    struct arena *place = arena; /* a variable itself; it never changes */
    size_t used = ((const struct arena *)from)->used, next = 0;
    const uint64_t *n = (const uint64_t *)(const void *)((const char *)from + used);
    const struct page *page = (const struct page *)(const void *)(n + 1);
    copy(place, from, used);
    for (size_t i = 0; i < n_pages(); i++) {
        if (next < *n && page[next].number == i)
            copy(__data_start + i * PAGE, page[next++].bytes, page_size(i));
        else
            blank(__data_start + i * PAGE, page_size(i));
    }
}
