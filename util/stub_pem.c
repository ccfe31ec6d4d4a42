/*
 * stub_pem.c - a record's stub as PEM
 */
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/pem.h>

#include "output.h"
#include "stub_pem.h"

char *stub_uri(const APP *app, const TPKS_RECORD *record, bool pin)
{
    char *uri = tpks_uri_build(app->keystore, tpks_record_name(record));
    char digest[2 * 32 + 1];
    char *pinned;
    size_t room;

    if (uri == NULL || !pin)
        return uri;
    room = strlen(uri) + strlen("?spki=") + sizeof(digest);
    pinned = OPENSSL_malloc(room);
    if (pinned != NULL)
        snprintf(pinned, room, "%s%cspki=%s", uri, strchr(uri, '?') != NULL ? '&' : '?',
                 hex_text(tpks_record_spki_sha256(record), 32, digest));
    OPENSSL_free(uri);
    return pinned;
}

int stub_pem(const APP *app, const TPKS_RECORD *record, const char *label, bool pin, BIO *bio)
{
    char *uri = stub_uri(app, record, pin);
    unsigned char *der = NULL;
    size_t size = 0;
    int code;

    if (uri == NULL)
        return complain_memory();
    code = complain_result(tpks_stub_encode(tpks_record_key_type(record), uri, &der, &size));
    OPENSSL_free(uri);
    if (code == EX_OK && PEM_write_bio(bio, label, "", der, (long)size) <= 0)
        code = complain_memory();
    OPENSSL_free(der);
    return code;
}
