/*
 * server_files.h - the files that a server reads: certificates, and the stub in place of its key
 */
#ifndef TRUSTPOINT_UTIL_SERVER_FILES_H
#define TRUSTPOINT_UTIL_SERVER_FILES_H

#include <sys/stat.h>

#include <openssl/bio.h>

#include "command.h"

enum { SERVER_CERT, SERVER_CHAIN, SERVER_KEY, SERVER_FILES };

typedef struct server_file {
    char *path;
    BIO *content; /* NULL: there is nothing to be written */
} server_file;

typedef struct server_files {
    char *folder;     /* absolute */
    char *mark;       /* a file that is there while the server may not have seen the others */
    struct stat seen; /* the mark, as server_files_marked() has found it */
    server_file file[SERVER_FILES];
} server_files;

/* How files are written. */
typedef struct server_update {
    bool replace_key; /* also over a file with the record's own private key */
    bool dry_run;     /* only say what would be written */
} server_update;

/*
 * Their paths. `folder` is made when it is missing and `make`; it must be safe in a configuration.
 * `server` is NULL for BASE.crt, BASE.chain.crt and BASE.crt.key, or Trustpoint's own names begin
 * with it: SERVER-tls-server-cert.pem, -cert-chain.pem and -key.key.
 */
int server_files_name(server_files *files, const char *folder, bool make, const char *base,
                      const char *server);
/*
 * Their contents: the certificate, with its chain unless `leaf_only`; the chain alone, if there is
 * one; and, if `stub`, the stub, with the present key pinned if `pin`.
 */
int server_files_fill(APP *app, const TPKS_RECORD *record, bool leaf_only, bool stub, bool pin,
                      server_files *files);
/*
 * Writes those whose contents are others, each at once, after the record's key has been loaded to
 * prove what is to be written. One process at a time. What is neither certificates nor a stub is
 * not replaced. *changed is how many were (or would be) written.
 */
int server_files_update(APP *app, const TPKS_RECORD *record, const server_files *files,
                        server_update how, size_t *changed);
/* Is a hook due, from now or from an earlier time? */
bool server_files_marked(server_files *files);
/* A hook that was begun after server_files_marked() has succeeded. */
int server_files_unmark(const server_files *files);
void server_files_free(server_files *files);

#endif
