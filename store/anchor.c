/*
 * anchor.c - this host's memory of a keystore, against rolled-back databases
 *
 * One small file per keystore in the state folder: DEK check value, generation and seal as this
 * host last saw them. Only root or the process's own user may have written it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "keystore_internal.h"

#define HEX_PROOF (2 * PROOF_SIZE)
#define ANCHOR_FORMAT "trustpoint-anchor 1\ndek %s\ngeneration %" PRIu64 "\nseal %s\n"
#define ANCHOR_SCAN                                                                                \
    "trustpoint-anchor 1\ndek %96[0-9a-f]\ngeneration %" SCNu64 "\nseal %96[0-9a-f]\n"
_Static_assert(HEX_PROOF == 96, "ANCHOR_SCAN has the number");

static void anchor_path(const TPKS *ks, char *path, size_t size)
{
    char id[2 * TPKS_ID_SIZE + 1];

    hex_text(ks->head.keystore, TPKS_ID_SIZE, id);
    snprintf(path, size, "%s/%s.anchor", keystore_setting(ks, "state"), id);
}

static void close_file(FILE **file)
{
    if (*file != NULL)
        fclose(*file);
}

/* A file that neither root nor we own says nothing. */
static bool trusted(FILE *file)
{
    struct stat info;

    return fstat(fileno(file), &info) == 0 && S_ISREG(info.st_mode) &&
           (info.st_uid == 0 || info.st_uid == geteuid());
}

static tpks_result contradiction(const TPKS *ks, const char *dek, uint64_t generation,
                                 const char *seal)
{
    char now_dek[HEX_PROOF + 1], now_seal[HEX_PROOF + 1];
    const dek_row *row = head_dek(&ks->head, ks->head.dek);

    hex_text(ks->head.seal, PROOF_SIZE, now_seal);
    if (row != NULL)
        hex_text(row->check_value, PROOF_SIZE, now_dek);
    if (row == NULL || strcmp(dek, now_dek) != 0)
        return fail(TPKS_TAMPERED,
                    "%s: the DEK is not the one that this host knows: find out who replaced it; if "
                    "it was you, go on with --accept-new-anchor",
                    ks->d.backend->describe(ks->d.db));
    if (ks->head.generation < generation ||
        (ks->head.generation == generation && strcmp(seal, now_seal) != 0))
        return fail(TPKS_ROLLED_BACK,
                    "%s: is at generation %" PRIu64 ", but this host has seen %" PRIu64
                    ": an older copy was put in its place; if it was you, go on with "
                    "--accept-new-anchor",
                    ks->d.backend->describe(ks->d.db), ks->head.generation, generation);
    return TPKS_OK;
}

/* What the file says. */
typedef struct anchor {
    char dek[HEX_PROOF + 1];
    uint64_t generation;
    char seal[HEX_PROOF + 1];
} anchor;

/* *known is false when this host has none. */
static tpks_result read_anchor(const TPKS *ks, anchor *out, bool *known)
{
    char path[PATH_SIZE];

    *known = false;
    anchor_path(ks, path, sizeof(path));
    __attribute__((cleanup(close_file))) FILE *file = fopen(path, "re");
    if (file == NULL || !trusted(file))
        return TPKS_OK;
    if (fscanf(file, ANCHOR_SCAN, out->dek, &out->generation, out->seal) != 3)
        return fail(TPKS_TAMPERED,
                    "the anchor %s is malformed: remove it if this host's database "
                    "is known to be good",
                    path);
    *known = true;
    return TPKS_OK;
}

tpks_result anchor_check(const TPKS *ks, bool *known)
{
    anchor a;

    TRY(read_anchor(ks, &a, known));
    return *known ? contradiction(ks, a.dek, a.generation, a.seal) : TPKS_OK;
}

uint64_t anchor_generation(const TPKS *ks)
{
    anchor a;
    bool known = false;

    return read_anchor(ks, &a, &known) == TPKS_OK && known ? a.generation : 0;
}

void anchor_write(const TPKS *ks)
{
    char path[PATH_SIZE], text[512], dek[HEX_PROOF + 1], seal[HEX_PROOF + 1];
    const dek_row *row = head_dek(&ks->head, ks->head.dek);

    if (row == NULL)
        return;
    anchor_path(ks, path, sizeof(path));
    hex_text(row->check_value, PROOF_SIZE, dek);
    hex_text(ks->head.seal, PROOF_SIZE, seal);
    int size = snprintf(text, sizeof(text), ANCHOR_FORMAT, dek, ks->head.generation, seal);
    if (file_replace(path, 0640, text, (size_t)size) != TPKS_OK)
        tpks_log(ks, "anchor-not-written", "", TPKS_NOT_PERMITTED);
}
