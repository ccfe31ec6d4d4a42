/*
 * key_input.h - reads private keys and certificates from files
 *
 * PEM in any order, DER, PKCS#8 (encrypted too) and PKCS#12, all parsed by libcrypto
 * (OSSL_STORE_attach(3)).
 */
#ifndef TRUSTPOINT_UTIL_KEY_INPUT_H
#define TRUSTPOINT_UTIL_KEY_INPUT_H

#include <sys/types.h>

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "command.h"

CLEANUP(EVP_PKEY *, EVP_PKEY_free, cleanup_pkey)
CLEANUP(X509 *, X509_free, cleanup_x509)

static inline void cleanup_certs(STACK_OF(X509) * *certs)
{
    sk_X509_pop_free(*certs, X509_free);
}

/* Where the password of encrypted input comes from: a file, a descriptor, or the terminal. */
typedef struct input_password {
    const char *file;
    unsigned long fd;    /* NO_FD if none */
    TPKS_SECRET *secret; /* once read; asked at most once for one command */
    int refused;         /* the exit code of the failure to get it */
} input_password;

/* One file that was read. */
typedef struct input_file {
    const char *path;
    dev_t device;
    ino_t inode;
    bool has_key;
    bool has_cert;
    const char *left_out; /* what kind of thing in it was passed over; NULL: none */
} input_file;

/* What was found in all files together. */
typedef struct key_input {
    EVP_PKEY *key;           /* NULL: none */
    STACK_OF(X509) * certs;  /* in the order in which they were found, each once */
    input_password password; /* set `file` and `fd` before reading */
} key_input;

void key_input_init(key_input *input);
void key_input_free(key_input *input);
/*
 * Adds what is in a file ("-" is standard input) of at most 1 MiB. A second, different private
 * key is an error, and so is a file with neither key nor certificate, or with anything that cannot
 * be read; parameters, public keys and CRLs are passed over. `file` gets what is needed to find the
 * same file again.
 */
int key_input_read(APP *app, key_input *input, input_file *file);
/* The same for files of certificates: a private key in it is an error. */
int key_input_read_certs(APP *app, key_input *input, const char *path);

/*
 * Sorts the certificates: the one that carries `key` first, then the issuer of each, every
 * signature verified. A certificate that has no place in that chain is an error that names it,
 * and so is having certificates but none for the key.
 */
int key_input_sort(const key_input *input, EVP_PKEY *key, STACK_OF(X509) * *out);

/* PKCS#8 DER (RFC 5208) written straight into secret memory. */
int key_to_secret(EVP_PKEY *key, TPKS_SECRET **out);
/* The key of such a secret. */
int key_from_secret(APP *app, const TPKS_SECRET *secret, EVP_PKEY **out);

static inline void cleanup_input(key_input *input)
{
    key_input_free(input);
}

#endif
