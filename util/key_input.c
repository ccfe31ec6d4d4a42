/*
 * key_input.c - reads private keys and certificates from files
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/store.h>
#include <openssl/ui.h>
#include <openssl/x509v3.h>

#include "key_input.h"
#include "output.h"
#include "secrets.h"

#define INPUT_MAX (1024 * 1024)

CLEANUP(OSSL_STORE_CTX *, OSSL_STORE_close, cleanup_store)
CLEANUP(UI_METHOD *, UI_destroy_method, cleanup_ui_method)
CLEANUP(OSSL_STORE_INFO *, OSSL_STORE_INFO_free, cleanup_info)

static inline void cleanup_fd(int *fd)
{
    if (*fd > STDERR_FILENO)
        close(*fd);
}

void key_input_init(key_input *input)
{
    *input = (key_input){.password = {.fd = NO_FD}};
}

void key_input_free(key_input *input)
{
    EVP_PKEY_free(input->key);
    sk_X509_pop_free(input->certs, X509_free);
    tpks_secret_free(input->password.secret);
}

/* ---- reading the bytes -------------------------------------------------------------------------
 */

/* Up to one byte more than is allowed, to tell a file that is too long. */
static int read_all(int fd, const char *path, TPKS_SECRET *into)
{
    size_t done = 0;
    ssize_t count = 1;

    while (count != 0 && done < tpks_secret_size(into)) {
        count = read(fd, tpks_secret_data(into) + done, tpks_secret_size(into) - done);
        if (count < 0 && errno != EINTR)
            return complain_file("cannot read", path);
        done += count > 0 ? (size_t)count : 0;
    }
    tpks_secret_shrink(into, done);
    return EX_OK;
}

static int open_input(input_file *file, int *fd, size_t *size)
{
    struct stat st;

    *fd = strcmp(file->path, "-") == 0 ? STDIN_FILENO : open(file->path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &st) != 0)
        return complain_file("cannot read", file->path);
    if (S_ISDIR(st.st_mode))
        return complain(EX_DATAERR, "%s is a directory; give the files in it", file->path);
    file->device = st.st_dev;
    file->inode = st.st_ino;
    *size = S_ISREG(st.st_mode) && st.st_size < INPUT_MAX ? (size_t)st.st_size : INPUT_MAX;
    return EX_OK;
}

static int read_input(input_file *file, TPKS_SECRET **out)
{
    AUTO(secret) TPKS_SECRET *bytes = NULL;
    AUTO(fd) int fd = -1;
    size_t size = 0;

    DO(open_input(file, &fd, &size));
    bytes = tpks_secret_new(size + 1);
    if (bytes == NULL)
        return complain_memory();
    DO(read_all(fd, file->path, bytes));
    if (tpks_secret_size(bytes) == 0)
        return complain(EX_DATAERR, "%s is empty; give a file with a private key or certificates",
                        file->path);
    if (tpks_secret_size(bytes) > INPUT_MAX)
        return complain(EX_DATAERR, "%s is longer than 1 MiB; it is not a key file", file->path);
    *out = bytes;
    bytes = NULL;
    return EX_OK;
}

/* ---- the password of encrypted input
 * ------------------------------------------------------------- */

typedef struct password_request {
    input_password *password;
    const char *path;
    bool asked; /* since the last object was read */
} password_request;

static int get_password(const password_request *request)
{
    input_password *password = request->password;
    char prompt[PATH_MAX + 32];

    if (password->file != NULL || password->fd != NO_FD)
        return secrets_read(password->file, password->fd, &password->secret);
    if (!secrets_have_terminal())
        return complain(EX_NOPERM,
                        "%s is encrypted and there is no terminal to ask at; "
                        "give --input-password-file FILE or --input-password-fd N",
                        request->path);
    snprintf(prompt, sizeof(prompt), "Password of %s: ", request->path);
    return secrets_prompt(prompt, &password->secret);
}

/* pem_password_cb(3) */
static int password_callback(char *buffer, int size, int rwflag, void *arg)
{
    password_request *request = arg;
    input_password *password = request->password;
    size_t length;

    (void)rwflag;
    request->asked = true;
    if (password->secret == NULL && password->refused == EX_OK)
        password->refused = get_password(request);
    if (password->secret == NULL)
        return -1;
    length = tpks_secret_size(password->secret);
    if (length > (size_t)size)
        return -1;
    memcpy(buffer, tpks_secret_data(password->secret), length);
    return (int)length;
}

/* ---- what is in a file
 * ---------------------------------------------------------------------------- */

static int add_key(key_input *input, input_file *file, EVP_PKEY *key)
{
    file->has_key = true;
    if (input->key == NULL) {
        input->key = key;
        return EX_OK;
    }
    bool same = EVP_PKEY_eq(input->key, key) == 1;

    EVP_PKEY_free(key);
    if (same)
        return EX_OK;
    return complain(EX_DATAERR, "%s holds a second private key; give one key for each record",
                    file->path);
}

static int add_cert(key_input *input, X509 *cert)
{
    if (input->certs == NULL)
        input->certs = sk_X509_new_null();
    for (int i = 0; i < sk_X509_num(input->certs); i++) {
        if (X509_cmp(sk_X509_value(input->certs, i), cert) == 0) {
            X509_free(cert);
            return EX_OK;
        }
    }
    if (sk_X509_push(input->certs, cert) > 0)
        return EX_OK;
    X509_free(cert);
    return complain_memory();
}

/* Parameters of an EC key stand in the key, too: nothing is lost with them. */
static bool is_in_key(const OSSL_STORE_INFO *info)
{
    return OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PARAMS &&
           EVP_PKEY_is_a(OSSL_STORE_INFO_get0_PARAMS(info), "EC");
}

static int add_object(key_input *input, input_file *file, const OSSL_STORE_INFO *info)
{
    int type = OSSL_STORE_INFO_get_type(info);

    if (type == OSSL_STORE_INFO_PKEY)
        return add_key(input, file, OSSL_STORE_INFO_get1_PKEY(info));
    if (type == OSSL_STORE_INFO_CERT) {
        file->has_cert = true;
        return add_cert(input, OSSL_STORE_INFO_get1_CERT(info));
    }
    if (!is_in_key(info))
        file->left_out = OSSL_STORE_INFO_type_string(type);
    return EX_OK;
}

/* libcrypto calls a wrong password by many names: that it asked for one is what tells. */
static int complain_unreadable(const password_request *request)
{
    ERR_clear_error();
    if (request->asked && request->password->refused != EX_OK)
        return request->password->refused;
    if (request->asked)
        return complain(EX_NOPERM,
                        "%s: the password is wrong (or the file is damaged); "
                        "check which password it was encrypted with",
                        request->path);
    return complain(EX_DATAERR,
                    "%s: there is something in it that is neither a private key nor a "
                    "certificate in PEM, DER, PKCS#8 or PKCS#12; check it with "
                    "openssl storeutl -noout -text",
                    request->path);
}

static int read_objects(key_input *input, input_file *file, OSSL_STORE_CTX *store,
                        password_request *request)
{
    while (!OSSL_STORE_eof(store)) {
        request->asked = false;

        AUTO(info) OSSL_STORE_INFO *info = OSSL_STORE_load(store);

        if (info == NULL)
            return complain_unreadable(request);
        DO(add_object(input, file, info));
    }
    return EX_OK;
}

/* PKCS#12 files of old programs use RC2, which lives in the legacy provider. */
static void try_legacy(APP *app)
{
    if (app->legacy == NULL)
        app->legacy = OSSL_PROVIDER_try_load(app->libctx, "legacy", 1);
    ERR_clear_error();
}

/* A block of PEM, or a whole file in DER. */
static int parse_part(APP *app, key_input *input, input_file *file, password_request *request,
                      const unsigned char *data, size_t size)
{
    AUTO(bio) BIO *bio = BIO_new_mem_buf(data, (int)size);
    AUTO(ui_method) UI_METHOD *ui = UI_UTIL_wrap_read_pem_callback(password_callback, 0);
    AUTO(store) OSSL_STORE_CTX *store = NULL;

    if (bio == NULL || ui == NULL)
        return complain_memory();
    store = OSSL_STORE_attach(bio, "file", app->libctx, NULL, ui, request, NULL, NULL, NULL);
    if (store == NULL)
        return complain_crypto(EX_SOFTWARE, "cannot read key files");
    return read_objects(input, file, store, request);
}

/* Moves behind the next block of PEM. *is_end: there is none. False for a damaged one, too. */
static bool next_block(BIO *bio, bool *is_end)
{
    char *label = NULL, *header = NULL;
    unsigned char *data = NULL;
    long size = 0;
    bool found;

    ERR_clear_error();
    found = PEM_read_bio(bio, &label, &header, &data, &size) == 1;
    *is_end = !found && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    OPENSSL_free(label);
    OPENSSL_free(header);
    OPENSSL_clear_free(data, (size_t)size);
    ERR_clear_error();
    return found;
}

/* How many lines say that a block ends: a block whose beginning is damaged has one, too. */
static size_t count_ends(const unsigned char *data, size_t size)
{
    static const char mark[] = "\n-----END ";
    const unsigned char *end = data + size;
    size_t count = 0;

    while ((data = memmem(data, (size_t)(end - data), mark, sizeof(mark) - 1)) != NULL) {
        data += sizeof(mark) - 1;
        count++;
    }
    return count;
}

/*
 * Block by block, for at the end of a file the loader of libcrypto does not tell a damaged block,
 * or a wrong password, from nothing.
 */
static int parse_input(APP *app, key_input *input, input_file *file, const TPKS_SECRET *bytes)
{
    password_request request = {&input->password, file->path, false};
    const unsigned char *data = tpks_secret_data_const(bytes);
    size_t size = tpks_secret_size(bytes), start = 0, blocks = 0;
    AUTO(bio) BIO *bio = BIO_new_mem_buf(data, (int)size);
    bool is_end;

    if (bio == NULL)
        return complain_memory();
    try_legacy(app);
    for (; next_block(bio, &is_end); blocks++) {
        size_t end = size - BIO_ctrl_pending(bio);

        DO(parse_part(app, input, file, &request, data + start, end - start));
        start = end;
    }
    request.asked = false;
    if (!is_end || blocks != count_ends(data, size))
        return complain_unreadable(&request);
    return blocks > 0 ? EX_OK : parse_part(app, input, file, &request, data, size);
}

int key_input_read(APP *app, key_input *input, input_file *file)
{
    AUTO(secret) TPKS_SECRET *bytes = NULL;

    DO(read_input(file, &bytes));
    DO(parse_input(app, input, file, bytes));
    ERR_clear_error();
    if (file->has_key || file->has_cert)
        return EX_OK;
    return complain(EX_DATAERR, "%s holds neither a private key nor a certificate", file->path);
}

int key_input_read_certs(APP *app, key_input *input, const char *path)
{
    input_file file = {.path = path};

    DO(key_input_read(app, input, &file));
    if (!file.has_key)
        return EX_OK;
    return complain(EX_DATAERR, "%s holds a private key where only certificates belong", path);
}

/* ---- the chain
 * -------------------------------------------------------------------------------------- */

static int complain_cert(const X509 *cert, const char *why)
{
    AUTO(bio) BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    long size;

    if (bio == NULL)
        return complain_memory();
    X509_NAME_print_ex(bio, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
    size = BIO_get_mem_data(bio, &text);
    return complain(EX_DATAERR, "certificate %.*s %s", (int)size, text, why);
}

/* Takes the first certificate that carries the key out of the stack; NULL if none does. */
static X509 *take_leaf(STACK_OF(X509) * certs, EVP_PKEY *key)
{
    for (int i = 0; i < sk_X509_num(certs); i++)
        if (EVP_PKEY_eq(X509_get0_pubkey(sk_X509_value(certs, i)), key) == 1)
            return sk_X509_delete(certs, i);
    return NULL;
}

/* Takes the issuer of `cert` out of the stack; NULL if it isn't there. */
static X509 *take_issuer(STACK_OF(X509) * certs, X509 *cert)
{
    for (int i = 0; i < sk_X509_num(certs); i++) {
        X509 *issuer = sk_X509_value(certs, i);

        if (X509_check_issued(issuer, cert) == X509_V_OK &&
            X509_verify(cert, X509_get0_pubkey(issuer)) == 1)
            return sk_X509_delete(certs, i);
    }
    return NULL;
}

/* Moves certificates from `rest` to `chain` as long as there is an issuer. */
static int follow(STACK_OF(X509) * rest, X509 *leaf, STACK_OF(X509) * chain)
{
    X509 *cert = leaf;

    for (; cert != NULL; cert = take_issuer(rest, cert)) {
        if (sk_X509_push(chain, cert) <= 0) {
            X509_free(cert);
            return complain_memory();
        }
    }
    ERR_clear_error();
    if (sk_X509_num(rest) > 0)
        return complain_cert(sk_X509_value(rest, 0), "has no place in the chain of this key's "
                                                     "certificate; leave it out");
    return EX_OK;
}

int key_input_sort(const key_input *input, EVP_PKEY *key, STACK_OF(X509) * *out)
{
    AUTO(certs) STACK_OF(X509) *rest = X509_chain_up_ref(input->certs);
    AUTO(certs) STACK_OF(X509) *chain = sk_X509_new_null();
    X509 *leaf;

    if (input->certs == NULL)
        return EX_OK;
    if (rest == NULL || chain == NULL)
        return complain_memory();
    leaf = take_leaf(rest, key);
    ERR_clear_error();
    if (leaf == NULL)
        return complain_cert(sk_X509_value(rest, 0), "does not belong to the private key, and no "
                                                     "other one does; give the right pair");
    DO(follow(rest, leaf, chain));
    *out = chain;
    chain = NULL;
    return EX_OK;
}

/* ---- PKCS#8
 * ------------------------------------------------------------------------------------------- */

CLEANUP(PKCS8_PRIV_KEY_INFO *, PKCS8_PRIV_KEY_INFO_free, cleanup_p8)

int key_to_secret(EVP_PKEY *key, TPKS_SECRET **out)
{
    AUTO(p8) PKCS8_PRIV_KEY_INFO *p8 = EVP_PKEY2PKCS8(key);
    int size = p8 != NULL ? i2d_PKCS8_PRIV_KEY_INFO(p8, NULL) : -1;
    unsigned char *to;

    if (size <= 0)
        return complain_crypto(EX_DATAERR, "this private key cannot be written as PKCS#8");
    *out = tpks_secret_new((size_t)size);
    if (*out == NULL)
        return complain_memory();
    to = tpks_secret_data(*out);
    i2d_PKCS8_PRIV_KEY_INFO(p8, &to);
    return EX_OK;
}

int key_from_secret(APP *app, const TPKS_SECRET *secret, EVP_PKEY **out)
{
    const unsigned char *from = tpks_secret_data_const(secret);

    *out = d2i_AutoPrivateKey_ex(NULL, &from, (long)tpks_secret_size(secret), app->libctx, NULL);
    if (*out == NULL)
        return complain_crypto(EX_DATAERR, "the private key of the record cannot be read");
    return EX_OK;
}
