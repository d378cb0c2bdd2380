/*
 * Runs a program step by step and prints the address of every 16-byte block
 * of its code that is executed, in the order of the first time. Children are
 * followed until they execute another program, and let go when the first process
 * ends. For static binaries that are not position independent; see
 * integration/link-order.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILDREN 16
#define LOW 0x200000UL
#define HIGH 0x1200000UL

static unsigned char seen[(HIGH - LOW) / 16];

static void note(FILE *out, unsigned long address) {
    if (address < LOW || address >= HIGH) return;
    unsigned long block = (address - LOW) / 16;
    if (!seen[block]) {
        seen[block] = 1;
        fprintf(out, "%lx\n", LOW + block * 16);
    }
}

static pid_t children[CHILDREN];

static void remember(pid_t pid) {
    for (int i = 0; i < CHILDREN; i++) {
        if (children[i] == pid) return;
        if (!children[i]) {
            children[i] = pid;
            return;
        }
    }
}

static void forget(pid_t pid) {
    for (int i = 0; i < CHILDREN; i++)
        if (children[i] == pid) children[i] = 0;
}

/* One that runs has to be stopped for that. */
static void let_go(void) {
    for (int i = 0; i < CHILDREN; i++) {
        int status;
        if (!children[i] || kill(children[i], SIGSTOP)) continue;
        while (waitpid(children[i], &status, __WALL) == children[i] && WIFSTOPPED(status)) {
            if (WSTOPSIG(status) == SIGSTOP) {
                ptrace(PTRACE_DETACH, children[i], 0, 0);
                break;
            }
            ptrace(PTRACE_CONT, children[i], 0, 0);
        }
    }
}

int main(int argc, char **argv) {
    FILE *out = argc > 2 ? fopen(argv[1], "w") : NULL;
    if (!out) return 2;
    pid_t first = fork();
    if (first == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execv(argv[2], argv + 2);
        _exit(127);
    }
    int status;
    waitpid(first, &status, 0);
    ptrace(PTRACE_SETOPTIONS, first, 0,
           PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC |
               PTRACE_O_EXITKILL);
    ptrace(PTRACE_SINGLESTEP, first, 0, 0);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0) break;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (pid == first) break;
            forget(pid);
            continue;
        }
        if (pid != first) remember(pid);
        int signal = WSTOPSIG(status);
        if (signal == SIGTRAP && status >> 16 == PTRACE_EVENT_EXEC && pid != first) {
            ptrace(PTRACE_DETACH, pid, 0, 0);
            forget(pid);
            continue;
        }
        struct user_regs_struct registers;
        if (ptrace(PTRACE_GETREGS, pid, 0, &registers) == 0) note(out, registers.rip);
        int pass_on = signal == SIGTRAP || signal == SIGSTOP ? 0 : signal;
        ptrace(PTRACE_SINGLESTEP, pid, 0, pass_on);
    }
    let_go();
    fclose(out);
    return 0;
}
