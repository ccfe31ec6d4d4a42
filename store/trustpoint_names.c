/* trustpoint_names.c - what records of Trustpoint's databases are called */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>

#include "trustpoint.h"

#define NAME_ROOM 1024 /* more than any name that passes tpks_name_check() */

/* What is called PREFIX and a name of its own. */
static const char *prefix_of(const trustpoint_row *row, const char **name)
{
    const struct {
        const char *prefix;
        const char *name;
    } names[] = {
        {TRUSTPOINT_CA, row->ca},
        {TRUSTPOINT_SIGNER, row->signer},
        {TRUSTPOINT_OWNER, row->owner},
        {TRUSTPOINT_KEY, row->credential == 0 ? row->alias : NULL},
    };

    for (size_t i = 0; i < COUNT(names); i++)
        if (names[i].name != NULL) {
            *name = names[i].name;
            return names[i].prefix;
        }
    return NULL;
}

/* A device's name with a '/' in it could not be told from what follows it. */
static bool is_device(const trustpoint_row *row)
{
    return row->device != NULL && row->device_cn != NULL && row->device_cn_repeats == 0 &&
           strchr(row->device, '/') == NULL;
}

static bool write_name(const trustpoint_row *row, char out[NAME_ROOM])
{
    const char *name = NULL, *prefix = prefix_of(row, &name);
    int size = 0;

    if (row->active_tls != 0)
        size = snprintf(out, NAME_ROOM, TRUSTPOINT_TLS);
    else if (prefix != NULL)
        size = snprintf(out, NAME_ROOM, "%s%s", prefix, name);
    else if (is_device(row))
        size = snprintf(out, NAME_ROOM, TRUSTPOINT_DEVICE "%s/%s", row->device, row->device_cn);
    return size > 0 && size < NAME_ROOM && tpks_name_check(out) == TPKS_OK;
}

char *trustpoint_name(const trustpoint_row *row)
{
    char name[NAME_ROOM];

    if (!write_name(row, name)) {
        if (row->credential != 0)
            snprintf(name, sizeof(name), TRUSTPOINT_CREDENTIAL "%" PRIu64, row->credential);
        else
            snprintf(name, sizeof(name), TRUSTPOINT_KEY "%.64s",
                     row->uuid == NULL ? "" : row->uuid);
    }
    return OPENSSL_strdup(name);
}

bool trustpoint_name_is_canonical(const char *name)
{
    static const char *const prefixes[] = {TRUSTPOINT_CA,    TRUSTPOINT_SIGNER,
                                           TRUSTPOINT_OWNER, TRUSTPOINT_DEVICE,
                                           TRUSTPOINT_KEY,   TRUSTPOINT_CREDENTIAL};

    for (size_t i = 0; i < COUNT(prefixes); i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return strcmp(name, TRUSTPOINT_TLS) == 0;
}

const char *trustpoint_role(const trustpoint_row *row)
{
    static const char *const by_type[] = {"key", "ca", "ca", "device", "owner", "signer"};

    if (row->active_tls != 0)
        return "tls-server";
    if (row->ca != NULL)
        return "ca";
    if (row->signer != NULL)
        return "signer";
    if (row->owner != NULL)
        return "owner";
    if (row->device != NULL)
        return "device";
    return row->credential != 0 && row->type < COUNT(by_type) ? by_type[row->type] : "key";
}

bool trustpoint_uuid(const char *text, unsigned char out[TPKS_ID_SIZE])
{
    char hex[2 * TPKS_ID_SIZE + 1];
    size_t digits = 0, size = 0;

    for (; *text != '\0'; text++) {
        if (*text == '-')
            continue;
        if (digits == sizeof(hex) - 1 || OPENSSL_hexchar2int((unsigned char)*text) < 0)
            return false;
        hex[digits++] = *text;
    }
    hex[digits] = '\0';
    return digits == sizeof(hex) - 1 &&
           OPENSSL_hexstr2buf_ex(out, TPKS_ID_SIZE, &size, hex, '\0') == 1;
}
