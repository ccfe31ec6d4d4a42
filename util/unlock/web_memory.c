/*
 * web_memory.c - memory of libevent that is wiped when it is given back
 *
 * A form's password passes through buffers and header lists of libevent, which frees them as they
 * are.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "web.h"

static void wipe_and_free(void *memory)
{
    if (memory != NULL)
        OPENSSL_cleanse(memory, malloc_usable_size(memory));
    free(memory);
}

/* realloc(3) may move the block and leave the old one as it was. */
static void *move(void *memory, size_t size)
{
    void *fresh = malloc(size);
    size_t before = memory != NULL ? malloc_usable_size(memory) : 0;

    if (fresh == NULL)
        return NULL;
    if (before > 0)
        memcpy(fresh, memory, before < size ? before : size);
    wipe_and_free(memory);
    return fresh;
}

void web_wiping_memory(void)
{
    event_set_mem_functions(malloc, move, wipe_and_free);
}
