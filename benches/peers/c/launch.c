/*
 * Runs a program and writes its exit code and the largest resident set of it and
 * of all processes that were waited for below it, in KiB, to a file:
 *
 *   launch FILE PROGRAM ARGS...
 *
 * It is this small because a process takes over its maker's size: the kernel
 * counts what was resident before execve as well.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct rusage usage;
    int status;

    if (argc < 3)
        return 64;
    pid_t pid = vfork();
    if (pid == 0) {
        execv(argv[2], argv + 2);
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid)
        return 71;
    FILE *out = fopen(argv[1], "w");
    if (!out)
        return 73;
    fprintf(out, "%d %ld\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128, usage.ru_maxrss);
    return fclose(out) == 0 ? 0 : 74;
}
