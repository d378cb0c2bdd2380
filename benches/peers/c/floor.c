/*
 * The floor: what the kernel takes for a container, and nothing else.
 *
 *   floor default|docker CGROUP2 ID ROOTFS ETC HOSTNAME FILTER PROGRAM [ARGS...]
 *
 * FILTER is a file with a compiled seccomp filter, or - for none.
 *
 * The same namespaces, mounts, nodes, masked paths, limits, capabilities and
 * device program as the config of that name, in the order in which tare does
 * it, with each thing fixed at compile time: no JSON, no state, no checks of
 * the image, no messages. It waits for the program and removes the cgroup.
 *
 * A change of the config in src/config.rs belongs here as well; the bench runs
 * `inside check` in both, and ends where they differ.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

static int docker;
static const char *cgroup, *rootfs, *etc, *hostname;

static long must(long result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        _exit(1);
    }
    return result;
}

static int clone_tree(int dir, const char *path, unsigned flags)
{
    return must(syscall(SYS_open_tree, dir, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags), path);
}

/* Paths are below the root, which is the working directory by now. */
static void put(int tree, const char *path)
{
    must(syscall(SYS_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH), path);
}

static void set_attributes(int tree, unsigned long long set)
{
    struct mount_attr attr = {.attr_set = set};
    must(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr), "mount_setattr");
}

struct option {
    const char *key, *value;
};

static int make(const char *type, const struct option *options, unsigned attrs)
{
    int context = must(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), type);
    for (; options->key; options++)
        must(syscall(SYS_fsconfig, context, options->value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG,
                     options->key, options->value, 0), options->key);
    must(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0), type);
    int tree = must(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attrs), type);
    close(context);
    return tree;
}

static void mount_new(const char *type, const char *path, const struct option *options,
                      unsigned attrs)
{
    int tree = make(type, options, attrs);
    put(tree, path);
    close(tree);
}

#define SAFE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV)

static void mount_all(int own_cgroup)
{
    static const struct option none[] = {{0}};
    static const struct option dev[] = {{"source", "tmpfs"}, {"mode", "755"}, {"size", "65536k"}, {0}};
    static const struct option pts[] = {{"source", "devpts"}, {"newinstance", NULL},
                                        {"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}, {0}};
    static const struct option shm[] = {{"source", "shm"}, {"mode", "1777"}, {"size", "65536k"}, {0}};

    mount_new("proc", "proc", none, docker ? SAFE : 0);
    mount_new("tmpfs", "dev", dev, MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME);
    must(mkdir("dev/pts", 0755), "dev/pts");
    mount_new("devpts", "dev/pts", pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    must(mkdir("dev/shm", 0755), "dev/shm");
    mount_new("tmpfs", "dev/shm", shm, SAFE);
    must(mkdir("dev/mqueue", 0755), "dev/mqueue");
    mount_new("mqueue", "dev/mqueue", none, SAFE);
    mount_new("sysfs", "sys", none, SAFE | MOUNT_ATTR_RDONLY);
    set_attributes(own_cgroup, SAFE | MOUNT_ATTR_RDONLY);
    put(own_cgroup, "sys/fs/cgroup");
}

static void bind_etc(const int *trees)
{
    static const char *const names[] = {"etc/resolv.conf", "etc/hostname", "etc/hosts"};
    for (unsigned i = 0; i < LENGTH(names); i++) {
        put(trees[i], names[i]);
        close(trees[i]);
    }
}

static void make_nodes(void)
{
    static const struct {
        const char *path;
        unsigned major, minor;
    } nodes[] = {{"dev/null", 1, 3},   {"dev/zero", 1, 5},    {"dev/full", 1, 7},
                 {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
    static const char *const links[][2] = {{"/proc/self/fd", "dev/fd"},
                                           {"/proc/self/fd/0", "dev/stdin"},
                                           {"/proc/self/fd/1", "dev/stdout"},
                                           {"/proc/self/fd/2", "dev/stderr"},
                                           {"pts/ptmx", "dev/ptmx"}};
    for (unsigned i = 0; i < LENGTH(nodes); i++)
        must(mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)),
             nodes[i].path);
    for (unsigned i = 0; i < LENGTH(links); i++)
        must(symlink(links[i][0], links[i][1]), links[i][1]);
}

static void make_readonly(void)
{
    static const char *const paths[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys",
                                        "proc/sysrq-trigger"};
    for (unsigned i = 0; i < LENGTH(paths); i++) {
        int tree = syscall(SYS_open_tree, AT_FDCWD, paths[i],
                           OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
        if (tree < 0 && errno == ENOENT)
            continue;
        must(tree, paths[i]);
        set_attributes(tree, MOUNT_ATTR_RDONLY);
        put(tree, paths[i]);
        close(tree);
    }
}

static void mask(void)
{
    static const char *const common[] = {
        "proc/acpi", "proc/asound", "proc/kcore", "proc/keys", "proc/latency_stats",
        "proc/timer_list", "proc/timer_stats", "proc/sched_debug", "sys/firmware", "proc/scsi",
        /* Docker's config has these two as well */
        "proc/interrupts", "sys/devices/virtual/powercap"};
    static const struct option empty[] = {{"size", "0"}, {"nr_inodes", "1"}, {"mode", "755"}, {0}};
    int first = -1;

    for (unsigned i = 0; i < LENGTH(common) - (docker ? 0 : 2); i++) {
        struct stat st;
        int cover;
        if (stat(common[i], &st) < 0)
            continue;
        if (!S_ISDIR(st.st_mode))
            cover = clone_tree(AT_FDCWD, "/dev/null", 0);
        else if (first >= 0)
            cover = clone_tree(first, "", AT_EMPTY_PATH);
        else
            cover = make("tmpfs", empty, SAFE | MOUNT_ATTR_RDONLY);
        put(cover, common[i]);
        if (S_ISDIR(st.st_mode) && first < 0)
            first = cover;
        else
            close(cover);
    }
    if (first >= 0)
        close(first);
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING};
    int fd = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
    memcpy(request.ifr_name, "lo", 3);
    must(ioctl(fd, SIOCSIFFLAGS, &request), "loopback");
    close(fd);
}

#define BIT(cap) (1ull << (cap))

static struct sock_filter filter_code[4096];
static struct sock_fprog program = {0, filter_code};

/* While the file can still be reached. */
static void read_filter(const char *path)
{
    int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
    program.len = must(read(fd, filter_code, sizeof filter_code), path) / sizeof *filter_code;
    close(fd);
}

/* While there is the capability to do so without no_new_privs. */
static void filter_calls(void)
{
    must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "seccomp");
}

static void drop_privileges(void)
{
    const unsigned long long three = BIT(CAP_AUDIT_WRITE) | BIT(CAP_KILL) | BIT(CAP_NET_BIND_SERVICE);
    const unsigned long long fourteen =
        three | BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) |
        BIT(CAP_MKNOD) | BIT(CAP_NET_RAW) | BIT(CAP_SETFCAP) | BIT(CAP_SETGID) | BIT(CAP_SETPCAP) |
        BIT(CAP_SETUID) | BIT(CAP_SYS_CHROOT);
    const unsigned long long keep = docker ? fourteen : three;
    const struct rlimit files = {1024, 1024};
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};

    must(setrlimit(RLIMIT_NOFILE, &files), "RLIMIT_NOFILE");
    if (!docker)
        must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    for (unsigned cap = 0; cap < 64; cap++)
        if (!(keep & BIT(cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno == EINVAL)
            break;
    must(syscall(SYS_setgroups, 0, NULL), "setgroups");
    if (program.len > 0)
        filter_calls();
    data[0].effective = data[0].permitted = (unsigned)keep;
    data[1].effective = data[1].permitted = (unsigned)(keep >> 32);
    must(syscall(SYS_capset, &header, data), "capset");
}

static void child(int gate, char **program)
{
    char *environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                           "TERM=xterm", NULL};
    char byte;

    umask(0);
    must(unshare(CLONE_NEWCGROUP), "cgroup namespace");
    must(setsid(), "setsid");
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.floor");
    raise_loopback();
    must(sethostname(hostname, strlen(hostname)), "sethostname");
    must(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL), "propagation");
    int own_cgroup = clone_tree(AT_FDCWD, cgroup, 0);
    int files[3];
    static const char *const names[] = {"resolv.conf", "hostname", "hosts"};
    for (unsigned i = 0; docker && i < LENGTH(names); i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", etc, names[i]);
        files[i] = clone_tree(AT_FDCWD, path, AT_RECURSIVE);
    }
    int root = clone_tree(AT_FDCWD, rootfs, AT_RECURSIVE);
    must(syscall(SYS_move_mount, root, "", AT_FDCWD, rootfs, MOVE_MOUNT_F_EMPTY_PATH), rootfs);
    must(fchdir(root), "rootfs");
    mount_all(own_cgroup);
    if (docker)
        bind_etc(files);
    make_nodes();
    make_readonly();
    mask();
    if (!docker)
        set_attributes(root, MOUNT_ATTR_RDONLY);
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "old root");
    must(chdir("/"), "chdir");
    drop_privileges();
    umask(022);
    must(syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC), "close_range");
    /* the device program has to be there before the first instruction */
    must(read(gate, &byte, 1) == 1 ? 0 : -1, "gate");
    execve(program[0], program, environment);
    must(-1, program[0]);
}

#define INSN(c, d, s, o, i) {.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)}
#define EQUAL(reg, value, to) INSN(BPF_JMP32 | BPF_JEQ | BPF_K, reg, 0, to, value)

/* mknod of anything, and the nodes above with ptmx and pts: what is allowed by
 * default. The numbers are distances to `allow` and `deny` at the end. */
static void allow_devices(int cgroup_fd)
{
    static const struct bpf_insn program[] = {
        INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 0, 0),
        INSN(BPF_ALU | BPF_MOV | BPF_X, 3, 2, 0, 0),
        INSN(BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16),
        INSN(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff),
        INSN(BPF_LDX | BPF_MEM | BPF_W, 4, 1, 4, 0),
        INSN(BPF_LDX | BPF_MEM | BPF_W, 5, 1, 8, 0),
        EQUAL(3, BPF_DEVCG_ACC_MKNOD, 14),
        INSN(BPF_JMP32 | BPF_JNE | BPF_K, 2, 0, 11, BPF_DEVCG_DEV_CHAR),
        EQUAL(4, 136, 12),
        INSN(BPF_JMP32 | BPF_JNE | BPF_K, 4, 0, 5, 1),
        EQUAL(5, 3, 10), EQUAL(5, 5, 9), EQUAL(5, 7, 8), EQUAL(5, 8, 7), EQUAL(5, 9, 6),
        INSN(BPF_JMP32 | BPF_JNE | BPF_K, 4, 0, 3, 5),
        EQUAL(5, 0, 4), EQUAL(5, 2, 3),
        INSN(BPF_JMP | BPF_JA, 0, 0, 0, 0),
        INSN(BPF_ALU | BPF_MOV | BPF_K, 0, 0, 0, 0), INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
        INSN(BPF_ALU | BPF_MOV | BPF_K, 0, 0, 0, 1), INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)};
    union bpf_attr attr;

    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = (unsigned long)program;
    attr.insn_cnt = LENGTH(program);
    attr.license = (unsigned long)"Apache-2.0";
    int loaded = must(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr), "bpf: load");
    memset(&attr, 0, sizeof attr);
    attr.target_fd = cgroup_fd;
    attr.attach_bpf_fd = loaded;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = BPF_F_ALLOW_MULTI;
    must(syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr), "bpf: attach");
    close(loaded);
}

/* "file value" a line, from the environment. */
static void set_limits(int cgroup_fd)
{
    char *limits = getenv("FLOOR_LIMITS");

    for (char *line = limits ? strtok(limits, "\n") : NULL; line; line = strtok(NULL, "\n")) {
        char *value = strchr(line, ' ');
        if (!value)
            continue;
        *value++ = '\0';
        int file = must(openat(cgroup_fd, line, O_WRONLY | O_CLOEXEC), line);
        must(write(file, value, strlen(value)), line);
        close(file);
    }
}

int main(int argc, char **argv)
{
    char path[4096];
    int gate[2], status;

    if (argc < 9)
        return 64;
    docker = strcmp(argv[1], "docker") == 0;
    rootfs = argv[4], etc = argv[5], hostname = argv[6];
    if (strcmp(argv[7], "-") != 0)
        read_filter(argv[7]);
    snprintf(path, sizeof path, "%s/%s", argv[2], argv[3]);
    cgroup = path;
    must(mkdir(cgroup, 0755), cgroup);
    int cgroup_fd = must(open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC), cgroup);
    set_limits(cgroup_fd);
    must(pipe2(gate, O_CLOEXEC), "pipe");
    struct clone_args how = {
        .flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS |
                 CLONE_INTO_CGROUP,
        .exit_signal = SIGCHLD,
        .cgroup = cgroup_fd,
    };
    pid_t pid = syscall(SYS_clone3, &how, sizeof how);
    if (pid == 0) {
        close(gate[1]);
        child(gate[0], argv + 8);
    }
    if (pid < 0) {
        perror("floor: clone3");
        rmdir(cgroup);
        return 1;
    }
    allow_devices(cgroup_fd);
    must(write(gate[1], "", 1), "gate");
    must(waitpid(pid, &status, 0), "wait");
    must(rmdir(cgroup), "remove the cgroup");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
