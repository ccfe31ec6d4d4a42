/* place.c - folders with everything that a keystore needs, and copies of them */
#include "fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

void must(bool good, const char *format, ...)
{
    va_list arguments;
    if (good)
        return;
    fflush(stdout);
    fprintf(stderr, "fault test: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, " (%s)\n", strerror(errno));
    _exit(70);
}

const char *in_place(const char *place, const char *name)
{
    static char paths[8][PATH_ROOM];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    must(snprintf(path, PATH_ROOM, "%s/%s", place, name) < PATH_ROOM, "path too long");
    return path;
}

void write_bytes(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(fd != -1 && write(fd, data, size) == (ssize_t)size, "writing %s", path);
    close(fd);
}

void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

char *read_all(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    must(fd != -1 && fstat(fd, &info) == 0, "opening %s", path);
    char *data = calloc(1, (size_t)info.st_size + 1);
    must(data != NULL && read(fd, data, (size_t)info.st_size) == info.st_size, "reading %s", path);
    close(fd);
    *size = (size_t)info.st_size;
    return data;
}

static void copy_file(const char *from, const char *to, mode_t mode)
{
    size_t size = 0;
    char *data = read_all(from, &size);
    write_bytes(to, data, size);
    must(chmod(to, mode & 07777) == 0, "chmod %s", to);
    free(data);
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

void copy_tree(const char *from, const char *to)
{
    struct stat info;
    must(stat(from, &info) == 0, "stat %s", from);
    if (!S_ISDIR(info.st_mode)) {
        copy_file(from, to, info.st_mode);
        return;
    }
    must(mkdir(to, info.st_mode & 07777) == 0, "mkdir %s", to);
    DIR *folder = opendir(from);
    must(folder != NULL, "opendir %s", from);
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char source[PATH_ROOM], target[PATH_ROOM];
        if (is_dots(entry->d_name))
            continue;
        must(snprintf(source, PATH_ROOM, "%s/%s", from, entry->d_name) < PATH_ROOM, "path");
        must(snprintf(target, PATH_ROOM, "%s/%s", to, entry->d_name) < PATH_ROOM, "path");
        copy_tree(source, target);
    }
    closedir(folder);
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

void remove_tree(const char *path)
{
    must(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT, "removing %s",
         path);
}

void write_configuration(const char *place, const char *variant, const char *module)
{
    char text[4 * PATH_ROOM], dek[32];
    const char *session = strchr(variant, '/');
    must(session != NULL && (size_t)(session - variant) < sizeof(dek), "variant %s", variant);
    snprintf(dek, sizeof(dek), "%.*s", (int)(session - variant), variant);
    snprintf(text, sizeof(text),
             "[keystore]\nstore = sqlite:%s/keystore.db\nstate = %s/state\n"
             "token = pkcs11:token=" TOKEN_LABEL "?module-path=%s&pin-source=file:%s/pin\n"
             "dek = %s\nhsm-session = %s\nrestore = callback\n",
             place, place, module, place, dek, session + 1);
    write_text(in_place(place, "keystore.cnf"), text);
}

void use_place(const char *place)
{
    char text[PATH_ROOM + 64];
    snprintf(text, sizeof(text), "directories.tokendir = %s/tokens\nlog.level = ERROR\n", place);
    write_text(in_place(place, "softhsm2.conf"), text);
    setenv("SOFTHSM2_CONF", in_place(place, "softhsm2.conf"), 1);
}

static void become(const char *log, const char *const *arguments)
{
    int out = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (out == -1 || in == -1 || dup2(in, 0) == -1 || dup2(out, 1) == -1 || dup2(out, 2) == -1)
        _exit(71);
    execvp(arguments[0], (char *const *)arguments);
    _exit(71);
}

int run_program(const char *log, const char *const *arguments)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0)
        become(log, arguments);
    must(pid > 0 && waitpid(pid, &status, 0) == pid, "running %s", arguments[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void init_token(const char *place)
{
    const char *arguments[] = {"softhsm2-util", "--init-token", "--free", "--label", TOKEN_LABEL,
                               "--so-pin",      "87654321",     "--pin",  PIN,       NULL};
    char log[PATH_ROOM];
    use_place(place);
    snprintf(log, sizeof(log), "%s", in_place(place, "util.log"));
    must(run_program(log, arguments) == 0, "softhsm2-util: see %s", log);
}

static bool lost;

static int find_empty(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    if (type == FTW_F && strcmp(path + walk->base, "token.object") == 0 && info->st_size == 0)
        lost = true;
    return 0;
}

bool token_was_lost(const char *place)
{
    lost = false;
    nftw(in_place(place, "tokens"), find_empty, 16, FTW_PHYS);
    return lost;
}
