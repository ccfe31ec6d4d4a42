/*
 * hsm_key_copy.c - copies of keys in the memory of the module
 *
 * A software token reads the file of a token object, under locks, at each use of it; of a session
 * object it has everything in memory. A copy is an object of the keeper session, as little readable
 * as the key itself, and dies with that session. It has another CKA_ID and CKA_LABEL, so that no
 * search, ours or another program's, takes it for a second key.
 */
#include "hsm_key_internal.h"

#include <stdlib.h>

struct key_copy {
    struct key_copy *next;
    uint64_t login; /* of the connection; handles mean something else after another one */
    CK_OBJECT_HANDLE object;
    atomic_uint users; /* its owner, and operations */
};

CK_OBJECT_HANDLE key_copy_use(struct key_copy *copy)
{
    atomic_fetch_add(&copy->users, 1);
    return copy->object;
}

void key_copy_end_use(struct key_copy *copy)
{
    if (copy != NULL)
        atomic_fetch_sub(&copy->users, 1);
}

static CK_RV copy_object(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                         CK_OBJECT_HANDLE *copy)
{
    static CK_BBOOL no = CK_FALSE;
    static unsigned char id[] = "session copy", label[] = "copy of a key for this session";
    CK_ATTRIBUTE template[] = {{CKA_TOKEN, &no, sizeof(no)},
                               {CKA_ID, id, sizeof(id) - 1},
                               {CKA_LABEL, label, sizeof(label) - 1}};

    return connection->module->functions->C_CopyObject(connection->session, object, template, 3,
                                                       copy);
}

/* SENSITIVE and EXTRACTABLE can't be asked for: where they are so already, SoftHSM refuses that. */
static bool is_well_kept(struct hsm_connection *connection, CK_OBJECT_HANDLE copy)
{
    return flag_is(connection, copy, CKA_TOKEN, CK_FALSE) &&
           flag_is(connection, copy, CKA_PRIVATE, CK_TRUE) &&
           flag_is(connection, copy, CKA_SENSITIVE, CK_TRUE) &&
           flag_is(connection, copy, CKA_EXTRACTABLE, CK_FALSE);
}

static bool fill_copy(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                      struct key_copy *copy)
{
    if (copy_object(connection, object, &copy->object) != CKR_OK)
        return false;
    copy->login = connection->logins;
    atomic_init(&copy->users, 1);
    if (is_well_kept(connection, copy->object))
        return true;
    (void)!connection->module->functions->C_DestroyObject(connection->session, copy->object);
    return false;
}

struct key_copy *key_copy_make(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                               uint64_t generation)
{
    HOLD(&connection->keeper);
    if (!connection_is_open(connection) || connection_generation(connection) != generation)
        return NULL;
    key_copies_destroy(connection);
    struct key_copy *copy = calloc(1, sizeof(*copy));
    if (copy == NULL || fill_copy(connection, object, copy))
        return copy;
    free(copy);
    return NULL;
}

void key_copy_drop(struct hsm_connection *connection, struct key_copy *copy)
{
    if (copy == NULL)
        return;
    if (connection->process != hsm_process()) { /* its mutex may have been held at the fork */
        free(copy);
        return;
    }
    HOLD(&connection->mutex);
    copy->next = connection->dropped;
    connection->dropped = copy;
    key_copy_end_use(copy);
}

/* One that nobody uses: SoftHSM gives nonsense for an object that goes during an operation. */
static struct key_copy *take_unused(struct hsm_connection *connection)
{
    HOLD(&connection->mutex);
    struct key_copy **at = &connection->dropped;

    while (*at != NULL && atomic_load(&(*at)->users) > 0)
        at = &(*at)->next;
    struct key_copy *copy = *at;
    if (copy != NULL)
        *at = copy->next;
    return copy;
}

void key_copies_destroy(struct hsm_connection *connection)
{
    struct key_copy *copy;

    while ((copy = take_unused(connection)) != NULL) {
        if (copy->login == connection->logins)
            (void)!connection->module->functions->C_DestroyObject(connection->session,
                                                                  copy->object);
        free(copy);
    }
}
