/* heap: see the header. */
#include "worker/core/heap.h"

#include <stdlib.h>

#include "common/xalloc.h"

void heap_node_init(struct heap_node *node, int kind)
{
    *node = (struct heap_node){.at = NEVER, .kind = kind};
}

static void place(struct heap *h, size_t i, struct heap_node *node)
{
    h->nodes[i] = node;
    node->index = i;
}

static void sift_up(struct heap *h, size_t i, struct heap_node *node)
{
    while (i > 0 && h->nodes[(i - 1) / 2]->at > node->at) {
        place(h, i, h->nodes[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(h, i, node);
}

static void sift_down(struct heap *h, size_t i, struct heap_node *node)
{
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->nodes[child + 1]->at < h->nodes[child]->at)
            child++;
        if (h->nodes[child]->at >= node->at)
            break;
        place(h, i, h->nodes[child]);
    }
    place(h, i, node);
}

static void take_out(struct heap *h, struct heap_node *node)
{
    struct heap_node *last = h->nodes[--h->n];
    size_t i = node->index;
    node->at = NEVER;
    if (last == node)
        return;
    if (i > 0 && h->nodes[(i - 1) / 2]->at > last->at)
        sift_up(h, i, last);
    else
        sift_down(h, i, last);
}

void heap_set(struct heap *h, struct heap_node *node, uint64_t at)
{
    if (node->at == at)
        return;
    if (node->at != NEVER)
        take_out(h, node);
    if (at == NEVER)
        return;
    GROW(h->nodes, h->n, h->cap);
    node->at = at;
    h->n++;
    sift_up(h, h->n - 1, node);
}

struct heap_node *heap_first(const struct heap *h)
{
    return h->n ? h->nodes[0] : NULL;
}

void heap_done(struct heap *h)
{
    ASSERT(h->n == 0);
    free(h->nodes);
    *h = (struct heap){0};
}
