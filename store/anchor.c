/*
 * anchor.c - this host's memory of a keystore, against rolled-back databases
 *
 * One small file per keystore in the state folder: DEK check value, generation and seal as this
 * host last saw them. Only root or the process's own user may have written it.
 */
#include <fcntl.h>
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
_Static_assert(HEX_PROOF == 96 && HEX_PROOF == ANCHOR_HEX, "ANCHOR_SCAN has the number");

static void anchor_path(const TPKS *ks, const head *h, char *path, size_t size)
{
    char id[2 * TPKS_ID_SIZE + 1];

    hex_text(h->keystore, TPKS_ID_SIZE, id);
    snprintf(path, size, "%s/%s.anchor", keystore_setting(ks, "state"), id);
}

static void close_file(FILE **file)
{
    if (*file != NULL)
        fclose(*file);
}

/* A file that neither root nor we own says nothing, and nothing but a file may hold us up. */
static FILE *open_trusted(const char *path)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    bool trusted = fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
                   (info.st_uid == 0 || info.st_uid == geteuid());
    FILE *file = trusted ? fdopen(fd, "r") : NULL;

    if (file == NULL && fd >= 0)
        close(fd);
    return file;
}

tpks_result anchor_read(const TPKS *ks, const head *h, anchor *out)
{
    char path[PATH_SIZE];

    memset(out, 0, sizeof(*out));
    anchor_path(ks, h, path, sizeof(path));
    __attribute__((cleanup(close_file))) FILE *file = open_trusted(path);
    out->known = file != NULL;
    if (file != NULL && fscanf(file, ANCHOR_SCAN, out->dek, &out->generation, out->seal) != 3)
        return fail(TPKS_TAMPERED,
                    "the anchor %s is malformed: if this host's database is known to be good, go "
                    "on with --accept-new-anchor",
                    path);
    return TPKS_OK;
}

uint64_t anchor_generation(const TPKS *ks)
{
    anchor seen;

    return anchor_read(ks, &ks->head, &seen) == TPKS_OK ? seen.generation : 0;
}

static void make_anchor(const head *h, anchor *out)
{
    const dek_row *row = head_dek(h, h->dek);

    memset(out, 0, sizeof(*out));
    out->known = true;
    out->generation = h->generation;
    hex_text(h->seal, PROOF_SIZE, out->seal);
    if (row != NULL)
        hex_text(row->check_value, PROOF_SIZE, out->dek);
}

tpks_result anchor_compare(const TPKS *ks, const head *h, const anchor *seen)
{
    const char *where = ks->d.backend->describe(ks->d.db);
    anchor now;

    make_anchor(h, &now);
    if (!seen->known)
        return TPKS_OK;
    if (strcmp(seen->dek, now.dek) != 0)
        return fail(TPKS_TAMPERED,
                    "%s: the DEK is not the one that this host knows: find out who replaced it; if "
                    "it was you, go on with --accept-new-anchor",
                    where);
    if (now.generation == seen->generation && strcmp(seen->seal, now.seal) != 0)
        return fail(TPKS_ROLLED_BACK,
                    "%s: its generation %" PRIu64
                    " is not the one that this host has seen: another "
                    "copy was put in its place; if it was you, go on with --accept-new-anchor",
                    where, now.generation);
    if (now.generation < seen->generation)
        return fail(TPKS_ROLLED_BACK,
                    "%s: is at generation %" PRIu64 ", but this host has seen %" PRIu64
                    ": an older copy was put in its place; if it was you, go on with "
                    "--accept-new-anchor",
                    where, now.generation, seen->generation);
    return TPKS_OK;
}

/* Has a faster process of this host left a later one? */
static bool overtaken(const TPKS *ks, const anchor *ours)
{
    anchor seen;

    return !ks->accept_new_anchor && anchor_read(ks, &ks->head, &seen) == TPKS_OK && seen.known &&
           strcmp(seen.dek, ours->dek) == 0 && seen.generation > ours->generation;
}

void anchor_write(const TPKS *ks)
{
    char path[PATH_SIZE], text[512];
    anchor ours;

    make_anchor(&ks->head, &ours);
    if (overtaken(ks, &ours))
        return;
    anchor_path(ks, &ks->head, path, sizeof(path));
    int size = snprintf(text, sizeof(text), ANCHOR_FORMAT, ours.dek, ours.generation, ours.seal);
    if (file_replace(path, 0644, text, (size_t)size) != TPKS_OK)
        tpks_log(ks, "anchor-not-written", "", TPKS_NOT_PERMITTED);
}
