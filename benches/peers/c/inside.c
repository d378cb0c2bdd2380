/*
 * The program in the measured containers: one static file.
 *
 *   true    ends at once with 0
 *   wait    waits for a signal
 *   check   prints what it sees, for the bench to hold against the config
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void print_status(void)
{
    static const char *const fields[] = {"CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"};
    char line[512];
    FILE *status = fopen("/proc/self/status", "r");

    while (status && fgets(line, sizeof line, status))
        for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++)
            if (strncmp(line, fields[i], strlen(fields[i])) == 0)
                fputs(line, stdout);
    if (status)
        fclose(status);
}

static void print_device(const char *path)
{
    struct stat st;
    printf("%s: %s\n", path,
           stat(path, &st) == 0 && S_ISCHR(st.st_mode) ? "device" : "missing");
}

/* A masked path is empty: a file without content, a directory without entries. */
static int is_masked(const char *path)
{
    char byte;
    int fd = open(path, O_RDONLY);
    int empty = fd < 0 ? errno == ENOENT : read(fd, &byte, 1) == 0;
    if (fd >= 0)
        close(fd);
    return empty;
}

/* The kernel's log, which no config allows; only a device program refuses it to
 * who may make nodes. */
static int opens_unlisted_device(void)
{
    mknod("/tmp/unlisted", S_IFCHR | 0600, makedev(1, 11));
    int fd = open("/tmp/unlisted", O_WRONLY);
    unlink("/tmp/unlisted");
    return fd >= 0;
}

static int check(void)
{
    char host[65] = "";
    struct rlimit files;

    gethostname(host, sizeof host - 1);
    getrlimit(RLIMIT_NOFILE, &files);
    printf("pid: %d\n", getpid());
    printf("host: %s\n", host);
    printf("files: %lu\n", (unsigned long)files.rlim_cur);
    print_status();
    print_device("/dev/null");
    print_device("/dev/urandom");
    print_device("/dev/pts/ptmx");
    printf("unlisted device: %s\n", opens_unlisted_device() ? "open" : "refused");
    printf("kcore: %s\n", is_masked("/proc/kcore") ? "masked" : "open");
    printf("keys: %s\n", is_masked("/proc/keys") ? "masked" : "open");
    printf("sysctl: %s\n", open("/proc/sys/kernel/domainname", O_WRONLY) < 0 && errno == EROFS
                               ? "read-only" : "open");
    printf("root: %s\n", open("/written", O_WRONLY | O_CREAT, 0600) < 0 && errno == EROFS
                             ? "read-only" : "writable");
    unlink("/written");
    printf("cgroup: %s\n", access("/sys/fs/cgroup/cgroup.procs", R_OK) == 0 ? "there" : "missing");
    return fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "true";

    if (strcmp(word, "true") == 0)
        return 0;
    if (strcmp(word, "check") == 0)
        return check();
    pause();
    return 0;
}
