/*
 * needles.c - the secrets of a keystore, in hexadecimal, for a search through memory
 *
 *     needles KEYSTORE.CNF PASSWORD-FILE RECOVERY-KEY-FILE
 *
 * Unlocks with the password and prints "dek HEX", "bek HEX" and "wrap-key HEX", one a line, and
 * the recovery key's 256 bits as "recovery-bits HEX". It is
 * compiled together with the sources of the library, of which it uses what is not public.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keystore_internal.h"
#include "password.h"

static void need(tpks_result result)
{
    if (result == TPKS_OK)
        return;
    fprintf(stderr, "needles: %s\n", tpks_error_text());
    exit(EXIT_FAILURE);
}

static void print(const char *name, const TPKS_SECRET *secret)
{
    printf("%s ", name);
    for (size_t i = 0; i < tpks_secret_size(secret); i++)
        printf("%02x", tpks_secret_data_const(secret)[i]);
    putchar('\n');
}

static void print_password_keys(const TPKS *ks, const TPKS_SECRET *password)
{
    TPKS_SECRET *bek = NULL, *wrap_key = NULL;
    unsigned char commitment[COMMITMENT_SIZE];

    for (size_t i = 0; i < ks->head.slot_count; i++) {
        const slot_row *slot = &ks->head.slots[i];
        if (slot->kind != SLOT_PASSWORD || slot->state != SLOT_ACTIVE)
            continue;
        need(kdf_password(password, &slot->cost, slot->salt.data, &bek));
        need(kdf_expand(NULL, bek, slot->salt.data, &wrap_key, commitment));
        print("bek", bek);
        print("wrap-key", wrap_key);
        tpks_secret_free(bek);
        tpks_secret_free(wrap_key);
    }
}

static void print_recovery(const char *path)
{
    TPKS_SECRET *text = NULL, *bits = NULL;

    need(tpks_secret_read_file(path, 1024, &text));
    need(recovery_key_parse(text, &bits));
    print("recovery-bits", bits);
    tpks_secret_free(bits);
    tpks_secret_free(text);
}

int main(int argc, char **argv)
{
    TPKS_CONFIG *config = NULL;
    TPKS_SECRET *password = NULL;
    TPKS *ks = NULL;

    if (argc != 4)
        return EXIT_FAILURE;
    need(tpks_config_load(argv[1], &config));
    need(tpks_secret_read_file(argv[2], 1024, &password));
    const tpks_options options = {.config = config, .no_restore = true};
    need(tpks_open(&options, &ks));
    need(tpks_unlock_with(ks, password));
    print("dek", dek_bytes(ks->dek));
    print_password_keys(ks, password);
    print_recovery(argv[3]);
    tpks_close(ks);
    tpks_secret_free(password);
    tpks_config_free(config);
    return EXIT_SUCCESS;
}
