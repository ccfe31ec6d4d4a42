/*
 * qr.c - a text as a QR code in the terminal
 */
#include "qr.h"

#include <ctype.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY "libqrencode.so.4"
#define TEXT_MAX 256
#define QUIET 4 /* modules of margin that a reader needs (ISO/IEC 18004) */
#define DARK 1u /* bit of a module in what the library makes */
/* Of libqrencode's interface, version 4 (qrencode.h): the lowest level of error correction but one,
 * for a code that is read from a screen; letters and digits. */
#define LEVEL_M 1
#define ANY_VERSION 0
#define CASE_INSENSITIVE 0
#define MODE_8 2

typedef struct code {
    int version;
    int width;
    unsigned char *data; /* width * width modules */
} code;

typedef struct library {
    void *handle;
    code *(*encode)(const char *text, int version, int level, int hint, int case_sensitive);
    void (*free)(code *made);
} library;

static int load(library *lib)
{
    lib->handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    /* A cast through an integer is how POSIX lets a function come out of dlsym(3). */
    if (lib->handle != NULL) {
        *(void **)&lib->encode = dlsym(lib->handle, "QRcode_encodeString");
        *(void **)&lib->free = dlsym(lib->handle, "QRcode_free");
    }
    if (lib->handle != NULL && lib->encode != NULL && lib->free != NULL)
        return EX_OK;
    return complain(EX_UNAVAILABLE, "--qr needs the library " LIBRARY
                                    ", which can't be loaded: install it (Debian's "
                                    "package is libqrencode4), or leave --qr out");
}

static void unload(library *lib)
{
    if (lib->handle != NULL)
        dlclose(lib->handle);
}

#define LIBRARY_HANDLE __attribute__((cleanup(unload))) library

int qr_check(void)
{
    LIBRARY_HANDLE lib = {.handle = NULL};

    return load(&lib);
}

/* ---- drawing ---- */

/* The margin is light. */
static bool is_dark(const code *made, int row, int column)
{
    return row >= 0 && column >= 0 && row < made->width && column < made->width &&
           (made->data[row * made->width + column] & DARK) != 0;
}

/* Two modules: nothing, the upper half, the lower half, the whole. */
static const char *half_blocks(bool upper, bool lower)
{
    static const char *const blocks[] = {" ", "\xe2\x96\x80", "\xe2\x96\x84", "\xe2\x96\x88"};

    return blocks[(upper ? 1 : 0) + (lower ? 2 : 0)];
}

/* Whatever the terminal's colours are, dark must be dark. */
static void draw(const code *made)
{
    bool colours = isatty(STDOUT_FILENO) != 0;

    for (int row = -QUIET; row < made->width + QUIET; row += 2) {
        fputs(colours ? "\x1b[30;107m" : "", stdout);
        for (int column = -QUIET; column < made->width + QUIET; column++)
            fputs(half_blocks(is_dark(made, row, column), is_dark(made, row + 1, column)), stdout);
        fputs(colours ? "\x1b[0m\n" : "\n", stdout);
    }
}

int qr_print(const TPKS_SECRET *text)
{
    LIBRARY_HANDLE lib = {.handle = NULL};
    AUTO(secret) TPKS_SECRET *capitals = tpks_secret_new(TEXT_MAX + 1);
    size_t size = tpks_secret_size(text);

    DO(load(&lib));
    if (capitals == NULL)
        return complain_memory();
    if (size > TEXT_MAX)
        return complain(EX_SOFTWARE, "the text is too long for a QR code");
    for (size_t i = 0; i < size; i++)
        tpks_secret_data(capitals)[i] = (unsigned char)toupper(tpks_secret_data_const(text)[i]);
    code *made = lib.encode((const char *)tpks_secret_data(capitals), ANY_VERSION, LEVEL_M, MODE_8,
                            CASE_INSENSITIVE);
    if (made == NULL)
        return complain(EX_OSERR, "cannot make the QR code; read the text instead");
    draw(made);
    OPENSSL_cleanse(made->data, (size_t)made->width * (size_t)made->width);
    lib.free(made);
    return EX_OK;
}
