/* Text with a history: what was written to a file or an output, each piece with its time and its
 * writer.
 *
 * Commands are run to their end when they begin, so a stream also holds pieces of the future; a
 * reader gets those that have come by its time. A writer that was killed has not written what came
 * after. */
#include "tests/sim/model_impl.h"

#include <string.h>

const char home_directory[] = "/home/daytona";

void stream_add(struct stream *s, uint64_t at, const struct proc *by, int tag, const char *text,
                size_t len)
{
    GROW(s->chunks, s->n, s->cap);
    s->chunks[s->n++] = (struct chunk){at, by, tag, xmemdup0(text, len), len};
}

static bool was_written(const struct chunk *c, uint64_t now)
{
    return c->at <= now && (!c->by || c->at <= c->by->ended);
}

void stream_read(const struct stream *s, uint64_t now, int tag, struct buf *out)
{
    size_t first = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->chunks[i].tag == STREAM_CUT && was_written(&s->chunks[i], now))
            first = i + 1;
    for (size_t i = first; i < s->n; i++) {
        const struct chunk *c = &s->chunks[i];
        if (c->tag != STREAM_CUT && (!tag || c->tag == tag) && was_written(c, now))
            buf_add(out, c->text, c->len);
    }
}

void stream_done(struct stream *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->chunks[i].text);
    free(s->chunks);
    *s = (struct stream){0};
}

struct file *file_find(struct daemon *d, const char *path, uint64_t now)
{
    struct file *f = NULL;
    HASH_FIND_STR(d->files, path, f);
    return f && f->made_at <= now ? f : NULL;
}

struct file *file_make(struct daemon *d, const char *path, uint64_t now, bool is_dir)
{
    struct file *f = NULL;
    HASH_FIND_STR(d->files, path, f);
    if (!f) {
        f = xcalloc(1, sizeof *f);
        f->path = xstrdup(path);
        f->is_dir = is_dir;
        f->made_at = now;
        HASH_ADD_KEYPTR(hh, d->files, f->path, strlen(f->path), f);
    }
    return f;
}

void file_remove(struct daemon *d, const char *path)
{
    struct file *f = NULL;
    HASH_FIND_STR(d->files, path, f);
    if (!f)
        return;
    HASH_DEL(d->files, f);
    stream_done(&f->stream);
    free(f->path);
    free(f);
}

char *path_join(const char *cwd, const char *path)
{
    if (*path == '/')
        return xstrdup(path);
    return xasprintf("%s%s%s", cwd, !strcmp(cwd, "/") ? "" : "/", path);
}
