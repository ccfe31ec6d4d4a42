/*
 * bench.c - the measured side of the benchmark; `run` starts it and makes the table
 *
 * Each CONF is an OpenSSL configuration file that says which providers are active; a KEY is a PEM
 * file's path or a trustpoint: URI, loaded through OSSL_STORE.
 *
 *   bench version                                 of OpenSSL, as major.minor
 *   bench sign CONF KEY COUNT                     signatures as TLS makes them, to count
 * instructions bench pem CONF FILE COUNT                     decodes a PEM private key COUNT times
 *   bench spki CONF FILE COUNT                    decodes the public key of a certificate
 *   bench many CONF PATTERN COUNT                 loads COUNT keys (%d in PATTERN); microseconds
 *   bench load CONF KEY COUNT                     loads one key COUNT times, to count instructions
 *   bench memory CONF KEY                         KiB private dirty and RSS with one key loaded
 *   bench peak COMMAND...                         KiB that COMMAND needed at most
 *   bench pair WHAT CONF KEY CONF KEY [CERT]      time of the first / time of the second, WHAT is
 *                                                 sign, load, tls (with CERT)
 *   bench server SOCKET SOCKET                    the same for handshakes with two servers
 *   bench apart CONF KEY CONF KEY THREADS         the same for signatures by THREADS threads, each
 *                                                 side in a process of its own
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/store.h>
#include <openssl/x509.h>

enum { ROUNDS = 101, ROUND_US = 12000 }; /* short ones: the clock of a shared machine drifts */

static void need(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "bench: %s failed\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static OSSL_LIB_CTX *new_libctx(const char *conf)
{
    OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();

    need(libctx != NULL && OSSL_LIB_CTX_load_config(libctx, conf), conf);
    return libctx;
}

static EVP_PKEY *load_key(OSSL_LIB_CTX *libctx, const char *uri)
{
    OSSL_STORE_CTX *store = OSSL_STORE_open_ex(uri, libctx, NULL, NULL, NULL, NULL, NULL, NULL);
    EVP_PKEY *key = NULL;

    need(store != NULL && OSSL_STORE_expect(store, OSSL_STORE_INFO_PKEY), uri);
    while (key == NULL && !OSSL_STORE_eof(store)) {
        OSSL_STORE_INFO *info = OSSL_STORE_load(store);

        if (info != NULL && OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY)
            key = OSSL_STORE_INFO_get1_PKEY(info);
        OSSL_STORE_INFO_free(info);
    }
    OSSL_STORE_close(store);
    need(key != NULL, uri);
    return key;
}

/* ---- one operation each ---------------------------------------------------------------------- */

/* One side of a comparison. */
typedef struct side {
    OSSL_LIB_CTX *libctx;
    const char *uri;
    EVP_PKEY *key;
    SSL_CTX *server, *client;
} side;

typedef void operation(side *s);

static void sign(side *s)
{
    static const unsigned char message[130];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx;
    unsigned char *signature;
    const char *digest = EVP_PKEY_is_a(s->key, "ED25519") ? NULL : "SHA256";
    size_t size = 0;

    need(EVP_DigestSignInit_ex(ctx, &pctx, digest, s->libctx, NULL, s->key, NULL), "init");
    if (EVP_PKEY_is_a(s->key, "RSA"))
        need(EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) > 0 &&
                 EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) > 0,
             "padding");
    need(EVP_DigestSign(ctx, NULL, &size, message, sizeof(message)), "size");
    signature = OPENSSL_malloc(size);
    need(EVP_DigestSign(ctx, signature, &size, message, sizeof(message)), "sign");
    OPENSSL_free(signature);
    EVP_MD_CTX_free(ctx);
}

static void load(side *s)
{
    EVP_PKEY_free(load_key(s->libctx, s->uri));
}

static void handshake(side *s)
{
    SSL *server = SSL_new(s->server), *client = SSL_new(s->client);
    BIO *a = NULL, *b = NULL;
    int done_server = 0, done_client = 0;

    need(server != NULL && client != NULL && BIO_new_bio_pair(&a, 0, &b, 0), "SSL_new");
    SSL_set_bio(server, a, a);
    SSL_set_bio(client, b, b);
    SSL_set_accept_state(server);
    SSL_set_connect_state(client);
    for (int i = 0; i < 20 && !(done_server == 1 && done_client == 1); i++) {
        done_client = SSL_do_handshake(client);
        done_server = SSL_do_handshake(server);
    }
    need(done_server == 1 && done_client == 1, "handshake");
    SSL_free(server);
    SSL_free(client);
}

/* ---- comparing ------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return values[count / 2];
}

static double time_of(operation *work, side *s, int count)
{
    double start = now_us();

    for (int i = 0; i < count; i++)
        work(s);
    return now_us() - start;
}

/* How many make a round; warms up on the way. */
static int calibrate(operation *work, side *a, side *b)
{
    double one = (time_of(work, a, 5), time_of(work, b, 5), time_of(work, a, 5) / 5);
    int count = (int)(ROUND_US / one);

    return count > 4 ? count : 4;
}

/* Alternates, each round in the other order; the median of the rounds' ratios. */
static void compare(operation *work, side *a, side *b)
{
    double ratios[ROUNDS], first[ROUNDS], second[ROUNDS];
    int count = calibrate(work, a, b);

    for (int i = 0; i < ROUNDS; i++) {
        if (i % 2 == 0) {
            first[i] = time_of(work, a, count);
            second[i] = time_of(work, b, count);
        } else {
            second[i] = time_of(work, b, count);
            first[i] = time_of(work, a, count);
        }
        ratios[i] = first[i] / second[i];
    }
    printf("%.4f %.2f %.2f\n", median(ratios, ROUNDS), median(first, ROUNDS) / count,
           median(second, ROUNDS) / count);
}

static SSL_CTX *new_client(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    need(ctx != NULL && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION), "client");
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    return ctx;
}

static SSL_CTX *new_server(side *s, const char *cert)
{
    SSL_CTX *ctx = SSL_CTX_new_ex(s->libctx, NULL, TLS_server_method());

    need(ctx != NULL && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) &&
             SSL_CTX_use_certificate_file(ctx, cert, SSL_FILETYPE_PEM) &&
             SSL_CTX_use_PrivateKey(ctx, s->key) && SSL_CTX_set_num_tickets(ctx, 0),
         "server");
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    return ctx;
}

static void prepare(side *s, const char *conf, const char *uri, const char *cert)
{
    s->libctx = new_libctx(conf);
    s->uri = uri;
    s->key = load_key(s->libctx, uri);
    if (cert != NULL) {
        s->server = new_server(s, cert);
        s->client = new_client();
    }
}

static int pair(int argc, char **argv)
{
    side a = {0}, b = {0};
    const char *cert = argc > 5 ? argv[5] : NULL;

    need(argc >= 5, "usage");
    prepare(&a, argv[1], argv[2], cert);
    prepare(&b, argv[3], argv[4], cert);
    compare(cert != NULL ? handshake : strcmp(argv[0], "load") == 0 ? load : sign, &a, &b);
    return 0;
}

/* ---- real servers ---------------------------------------------------------------------------- */

static void connect_once(side *s)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SSL *client = SSL_new(s->client);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", s->uri);
    need(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, s->uri);
    need(client != NULL && SSL_set_fd(client, fd) && SSL_connect(client) == 1, "SSL_connect");
    SSL_free(client);
    close(fd);
}

static int server(char **argv)
{
    SSL_CTX *client = new_client();
    side a = {.uri = argv[0], .client = client}, b = {.uri = argv[1], .client = client};

    compare(connect_once, &a, &b);
    return 0;
}

/* ---- sides that share no process: two providers that use one PKCS#11 module -------------------
 */

typedef struct remote {
    pid_t pid;
    int ask, answer; /* pipes */
} remote;

typedef struct share {
    side *s;
    int count;
} share;

static void *sign_share(void *arg)
{
    const share *mine = arg;

    for (int i = 0; i < mine->count; i++)
        sign(mine->s);
    return NULL;
}

static double time_threads(side *s, int count, int threads)
{
    pthread_t running[16];
    share each = {s, count / threads};
    double start = now_us();

    for (int i = 0; i < threads; i++)
        need(pthread_create(&running[i], NULL, sign_share, &each) == 0, "pthread_create");
    for (int i = 0; i < threads; i++)
        pthread_join(running[i], NULL);
    return now_us() - start;
}

/* Leaves without the exit handlers of providers, some of which crash there. */
static void serve(const char *conf, const char *uri, int threads, int ask, int answer)
{
    side s = {0};
    int count;
    double time;

    prepare(&s, conf, uri, NULL);
    while (read(ask, &count, sizeof(count)) == sizeof(count)) {
        time = time_threads(&s, count, threads);
        need(write(answer, &time, sizeof(time)) == sizeof(time), "write");
    }
    _exit(0);
}

static remote start_remote(const char *conf, const char *uri, int threads)
{
    int ask[2], answer[2];
    remote r;

    need(pipe2(ask, O_CLOEXEC) == 0 && pipe2(answer, O_CLOEXEC) == 0, "pipe2");
    r.pid = fork();
    need(r.pid >= 0, "fork");
    if (r.pid == 0) {
        close(ask[1]);
        close(answer[0]);
        serve(conf, uri, threads, ask[0], answer[1]);
    }
    close(ask[0]);
    close(answer[1]);
    r.ask = ask[1];
    r.answer = answer[0];
    return r;
}

static double remote_time(const remote *r, int count)
{
    double time;

    need(write(r->ask, &count, sizeof(count)) == sizeof(count), "write");
    need(read(r->answer, &time, sizeof(time)) == sizeof(time), "a side");
    return time;
}

static void end_remote(const remote *r)
{
    close(r->ask);
    close(r->answer);
    need(waitpid(r->pid, NULL, 0) == r->pid, "waitpid");
}

static int apart(char **argv)
{
    int threads = atoi(argv[4]), count;
    double ratios[ROUNDS], first[ROUNDS], second[ROUNDS];
    remote a, b;

    need(threads >= 1 && threads <= 16, "THREADS");
    a = start_remote(argv[0], argv[1], threads);
    b = start_remote(argv[2], argv[3], threads);
    (void)remote_time(&b, 50 * threads);
    count = (int)(ROUND_US / (remote_time(&a, 50 * threads) / (50 * threads)));
    count = count / threads < 4 ? 4 * threads : count - count % threads;
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 2 == 0)
            first[i] = remote_time(&a, count);
        second[i] = remote_time(&b, count);
        if (i % 2 == 1)
            first[i] = remote_time(&a, count);
        ratios[i] = first[i] / second[i];
    }
    printf("%.4f %.2f %.2f\n", median(ratios, ROUNDS), median(first, ROUNDS) / count,
           median(second, ROUNDS) / count);
    end_remote(&b); /* first, because it has inherited the pipe to the other */
    end_remote(&a);
    return 0;
}

/* ---- counted by callgrind or the kernel -------------------------------------------------------
 */

static int sign_many(char **argv)
{
    side s = {0};

    prepare(&s, argv[0], argv[1], NULL);
    for (int i = atoi(argv[2]); i > 0; i--)
        sign(&s);
    return 0;
}

static size_t read_file(const char *path, char *buffer, size_t size)
{
    FILE *file = fopen(path, "r");
    size_t got;

    need(file != NULL, path);
    got = fread(buffer, 1, size, file);
    fclose(file);
    return got;
}

static int decode_pem(char **argv)
{
    OSSL_LIB_CTX *libctx = new_libctx(argv[0]);
    char pem[8192];
    size_t size = read_file(argv[1], pem, sizeof(pem));

    for (int i = atoi(argv[2]); i > 0; i--) {
        BIO *in = BIO_new_mem_buf(pem, (int)size);
        EVP_PKEY *key = PEM_read_bio_PrivateKey_ex(in, NULL, NULL, NULL, libctx, NULL);

        need(key != NULL, argv[1]);
        EVP_PKEY_free(key);
        BIO_free(in);
    }
    return 0;
}

static int decode_spki(char **argv)
{
    OSSL_LIB_CTX *libctx = new_libctx(argv[0]);
    BIO *in = BIO_new_file(argv[1], "r");
    X509 *cert = PEM_read_bio_X509(in, NULL, NULL, NULL);
    unsigned char *der = NULL;
    long size = cert != NULL ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der) : 0;

    need(size > 0, argv[1]);
    for (int i = atoi(argv[2]); i > 0; i--) {
        const unsigned char *p = der;
        EVP_PKEY *key = d2i_PUBKEY_ex(NULL, &p, size, libctx, NULL);

        need(key != NULL, argv[1]);
        EVP_PKEY_free(key);
    }
    OPENSSL_free(der);
    X509_free(cert);
    BIO_free(in);
    return 0;
}

static int load_many(char **argv)
{
    OSSL_LIB_CTX *libctx = new_libctx(argv[0]);
    const char *number = strstr(argv[1], "%d");
    int count = atoi(argv[2]);
    double start = now_us();

    need(number != NULL, "a pattern with %d");
    for (int i = 0; i < count; i++) {
        char uri[512];

        snprintf(uri, sizeof(uri), "%.*s%d%s", (int)(number - argv[1]), argv[1], i, number + 2);
        EVP_PKEY_free(load_key(libctx, uri));
    }
    printf("%.0f\n", now_us() - start);
    return 0;
}

static int load_again(char **argv)
{
    OSSL_LIB_CTX *libctx = new_libctx(argv[0]);

    for (int i = atoi(argv[2]); i > 0; i--)
        EVP_PKEY_free(load_key(libctx, argv[1]));
    return 0;
}

static int memory(char **argv)
{
    EVP_PKEY *key = load_key(new_libctx(argv[0]), argv[1]);
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    long value, rss = 0, dirty = 0;

    need(file != NULL, "smaps_rollup");
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "Rss: %ld", &value) == 1)
            rss = value;
        if (sscanf(line, "Private_Dirty: %ld", &value) == 1)
            dirty = value;
    }
    fclose(file);
    EVP_PKEY_free(key);
    printf("%ld %ld\n", dirty, rss);
    return 0;
}

static int peak(char **argv)
{
    struct rusage usage;
    pid_t child = fork();
    int status;

    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);

        dup2(null, STDOUT_FILENO);
        execv(argv[0], argv);
        _exit(127);
    }
    need(child > 0 && waitpid(child, &status, 0) == child && status == 0, argv[0]);
    getrusage(RUSAGE_CHILDREN, &usage);
    printf("%ld\n", usage.ru_maxrss);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    char **rest = argv + 2;

    if (strcmp(what, "version") == 0)
        return printf("%u.%u\n", OPENSSL_version_major(), OPENSSL_version_minor()) < 0;
    if (strcmp(what, "peak") == 0 && argc > 2)
        return peak(rest);
    if (strcmp(what, "pair") == 0)
        return pair(argc - 2, rest);
    if (strcmp(what, "memory") == 0 && argc == 4)
        return memory(rest);
    if (strcmp(what, "server") == 0 && argc == 4)
        return server(rest);
    if (strcmp(what, "apart") == 0 && argc == 7)
        return apart(rest);
    need(argc == 5, "usage");
    if (strcmp(what, "sign") == 0)
        return sign_many(rest);
    if (strcmp(what, "pem") == 0)
        return decode_pem(rest);
    if (strcmp(what, "spki") == 0)
        return decode_spki(rest);
    if (strcmp(what, "many") == 0)
        return load_many(rest);
    if (strcmp(what, "load") == 0)
        return load_again(rest);
    need(0, "usage");
    return 1;
}
