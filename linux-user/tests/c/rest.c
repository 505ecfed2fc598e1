// Calls that need little checking: that they arrive with their arguments, and that bad ones fail as they should.
#include "check.h"
#include <linux/capability.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>

static char buf[4096];
#define S(name, ...) T(syscall(SYS_##name, __VA_ARGS__))
#define S0(name) T(syscall(SYS_##name))

static void files(void) {
    int fd = open("f", O_RDWR | O_CREAT | O_TRUNC, 0640);
    S(fsetxattr, fd, "user.a", "1", 1, 0);
    S(fgetxattr, fd, "user.a", buf, 10);
    S(flistxattr, fd, buf, 100);
    S(llistxattr, "f", buf, 100);
    S(lgetxattr, "f", "user.a", buf, 10);
    S(lsetxattr, "f", "user.b", "22", 2, 0);
    S(lremovexattr, "f", "user.b");
    S(fremovexattr, fd, "user.a");
    S(fremovexattr, fd, "user.a");
    OK(syscall(SYS_dup, fd) > fd);
    struct statfs sf;
    S(fstatfs, fd, &sf);
    S(fchmod, fd, 0604);
    struct stat st;
    // The C library's structure need not be this call's.
    S(fstat, fd, buf);
    T(fstat(fd, &st));
    T(st.st_mode);
    S(fchown, fd, getuid(), getgid());
    S(fchownat, AT_FDCWD, "f", getuid(), -1, 0);
    S(fchmodat, AT_FDCWD, "f", 0600);
    T(syscall(452, AT_FDCWD, "missing", 0600, 0));
    S(sync_file_range, fd, 0l, 0l, 2);
    S(readahead, fd, 0l, 100);
    S(syncfs, fd);
    S0(sync);
    struct iovec v = {"data", 4};
    S(pwritev2, fd, &v, 1, 3l, 0l, 0);
    T(fstat(fd, &st));
    T(st.st_size);
    int d = open(".", O_RDONLY);
    S(fchdir, d);
    S(fchdir, fd);
    int in = inotify_init1(0);
    int w = inotify_add_watch(in, ".", IN_MODIFY);
    T(inotify_rm_watch(in, w));
    T(inotify_rm_watch(in, w));
    struct {
        unsigned bytes;
        int type;
        char data[128];
    } handle = {128};
    int mount;
    syscall(SYS_name_to_handle_at, AT_FDCWD, "f", &handle, &mount, 0);
    OK(handle.bytes <= 128);
    handle.bytes = 500;
    S(name_to_handle_at, AT_FDCWD, "f", &handle, &mount, 0);
    S(open_by_handle_at, AT_FDCWD, 0, O_RDONLY);
    int e = epoll_create1(0);
    struct epoll_event ev;
    long long ts[] = {0, 1000000}; // 64-bit times on every machine
    S(epoll_pwait2, e, &ev, 1, ts, 0, 0);
    S(fanotify_init, 0xffff, 0);
    S(fanotify_mark, fd, 1, 2l, AT_FDCWD, "f");
    T(unlink("f"));
}

static void refused(void) {
    S(umount2, "missing", 0);
    S(mount, "a", "missing", "tmpfs", 0, 0);
    S(pivot_root, BAD, BAD);
    S(chroot, "missing");
    S(acct, "missing");
    S(quotactl, 12345, BAD, 0, 0);
    S(quotactl_fd, -1, 0, 0, 0);
    S(setns, -1, 0);
    S(sethostname, BAD, 3);
    S(setdomainname, "x", -1);
    struct timespec ts = {0, -1};
    S(clock_settime, CLOCK_REALTIME, &ts);
    struct timeval tv = {0, -1};
    S(settimeofday, &tv, 0);
    S(syslog, 99, 0, 0);
    S(open_tree, -1, "missing", 0);
    S(move_mount, -1, "a", -1, "b", 0);
    S(fsopen, "no such type", 0);
    S(fsconfig, -1, 0, "k", 0, 0);
    S(fsmount, -1, 0, 0);
    S(fspick, -1, "missing", 0);
    S(mount_setattr, -1, "missing", 0, 0, 0);
    S(landlock_create_ruleset, 0, 5, 0);
    S(landlock_add_rule, -1, 1, 0, 7);
    S(landlock_restrict_self, -1, 3);
    S(process_mrelease, -1, 0);
    S(add_key, "user", "tulk", "x", 1, 12345678);
    S(request_key, "nosuchtype", "tulk", 0, 0);
    S(keyctl, 9999, 0, 0, 0, 0);
    S(kcmp, getpid(), getpid(), 99, 0, 0);
    S(pidfd_open, -1, 0);
    S(pidfd_getfd, -1, 0, 0);
    S(fallocate, -1, 0, 0l, 1l);
}

static void identity(void) {
    OK(syscall(SYS_getppid) > 0 && syscall(SYS_gettid) == getpid());
    OK(syscall(SYS_getgid) == getgid() && syscall(SYS_getegid) == getegid());
    T(setreuid(-1, getuid()));
    T(setregid(-1, getgid()));
    T(setresuid(-1, -1, -1));
    T(setresgid(-1, -1, -1));
    T(setuid(getuid()));
    T(setgid(getgid()));
    OK(syscall(SYS_setfsuid, -1) == geteuid() && syscall(SYS_setfsgid, -1) == getegid());
    S(setgroups, -1, 0);
    gid_t r = 0, e = 0, s = 0; // 16 bits each on i386
    T(syscall(SYS_getresgid, &r, &e, &s));
    OK(r == getgid());
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct c[2];
    S(capget, &h, c);
    S(capset, &h, c);
    h.version = 1;
    S(capget, &h, c);
    T(h.version == _LINUX_CAPABILITY_VERSION_3);
    T(setpgid(0, 0));
    T(setpriority(PRIO_PROCESS, 0, 1));
    T(getpriority(PRIO_PROCESS, 0));
    S(ioprio_get, 1, 0);
    S(ioprio_set, 1, 0, 2 << 13 | 3);
    S(ioprio_get, 1, 0);
    S(personality, 0xffffffff);
}

static void scheduling(void) {
    S0(sched_yield);
    struct sched_param p = {0};
    T(sched_setparam(0, &p));
    T(sched_setscheduler(0, SCHED_BATCH, &p));
    T(sched_getscheduler(0));
    T(sched_get_priority_min(SCHED_RR));
    struct timespec ts;
    T(sched_rr_get_interval(0, &ts));
    unsigned attr[14] = {0};
    S(sched_getattr, 0, attr, 48, 0);
    T(attr[0]);
    T(attr[1]);
    S(sched_setattr, 0, attr, 0);
    S(sched_setattr, 0, 0, 0);
    struct rlimit l;
    S(getrlimit, RLIMIT_CORE, &l);
    S(setrlimit, RLIMIT_CORE, &l);
    struct timex t = {0};
    OK(syscall(SYS_adjtimex, &t) >= 0 && t.tick > 9000);
    memset(&t, 0, sizeof t);
    OK(syscall(SYS_clock_adjtime, CLOCK_REALTIME, &t) >= 0 && t.tick > 9000);
    struct sigevent se = {.sigev_notify = SIGEV_NONE};
    timer_t id;
    T(timer_create(CLOCK_REALTIME, &se, &id));
    T(timer_getoverrun(id));
    T(timer_delete(id));
    T(timer_delete(id));
    S(mq_notify, -1, &se);
    int sem = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
    struct sembuf op = {0, 1, 0};
#ifdef SYS_semop
    S(semop, sem, &op, 1);
    S(semop, sem, &op, 0);
#else // the C library's way
    T(semop(sem, &op, 1));
    T(semop(sem, &op, 0));
#endif
    T(semctl(sem, 0, IPC_RMID));
}

// Calls of newer kernels, whose numbers are the same everywhere.
static void newer(void) {
    T(syscall(447, 99)); // memfd_secret
    int fd = open("f", O_RDWR | O_CREAT, 0600);
    uint64_t range[2] = {0, 4096}, stat[5] = {99, 99, 99, 99, 99}, ids[64];
    T(syscall(451, fd, range, stat, 0)); // cachestat
    OK(stat[0] <= 1);
    T(syscall(451, fd, range, stat, 7));
    T(syscall(451, fd, BAD, stat, 0));
    struct { uint32_t size, spare; uint64_t id, param, ns; } req = {24, 0, ~0ull - 5, 1, 0};
    T(syscall(457, &req, buf, sizeof buf, 0)); // statmount
    T(syscall(458, &req, ids, 64, 0));         // listmount
    req.id = ~0ull;
    OK(syscall(458, &req, ids, 64, 0) != 0);
    uint32_t size = sizeof buf;
    T(syscall(459, 99, buf, &size, 0)); // lsm_get_self_attr
    T(syscall(460, 99, buf, 64, 0));    // lsm_set_self_attr
    size = sizeof ids;
    T(syscall(461, ids, &size, 0)); // lsm_list_modules
    // futex_wait, futex_wake, futex_requeue: FUTEX2_SIZE_U32 | FUTEX2_PRIVATE
    static uint32_t word = 1, other;
    int64_t soon[2] = {0, 1000000};
    T(syscall(455, &word, 2l, 0xffffffffl, 0x82, 0, CLOCK_MONOTONIC));
    T(syscall(455, &word, 1l, 0xffffffffl, 0x82, soon, CLOCK_MONOTONIC));
    T(syscall(455, &word, 1l, 0xffffffffl, 0x80, 0, CLOCK_MONOTONIC));
    T(syscall(454, &word, 0xffffffffl, 1, 0x82));
    struct { uint64_t value, address; uint32_t flags, reserved; } two[2] = {
        {1, (uintptr_t)&word, 0x82, 0},
        {0, (uintptr_t)&other, 0x82, 0},
    };
    T(syscall(456, two, 0, 1, 1));
    two[0].value = 3;
    T(syscall(456, two, 0, 1, 1));
    T(syscall(456, 0, 0, 1, 1));
    T(syscall(456, BAD, 0, 1, 1));
    S0(restart_syscall);
}

static void memory(void) {
    char *p = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    S(mlock2, p, 4096, 0);
    S(mlock2, p, 4096, 99);
    S0(munlockall);
    S(mlockall, 0);
    S(mbind, p, 4096, 0, 0, 0, 0);
    S(mbind, p, 4096, 99, 0, 0, 0);
    S(set_mempolicy, 0, 0, 0);
    int mode = 5;
    S(get_mempolicy, &mode, 0, 0, 0, 0);
    T(mode);
    S(pkey_mprotect, p, 4096, PROT_READ, -1);
    S(pkey_mprotect, p, 4096, PROT_READ, 5);
    S(pkey_free, 7);
    S(membarrier, 99, 0, 0);
    OK(syscall(SYS_membarrier, 0, 0, 0) > 0);
    struct iovec l = {"written", 8}, r = {p + 4096, 8};
    S(process_vm_writev, getpid(), &l, 1, &r, 1, 0);
    printf("%s\n", p + 4096);
    S(process_vm_writev, getpid(), &l, 1, &(struct iovec){BAD, 8}, 1, 0);
}

int main(void) {
    files();
    refused();
    identity();
    scheduling();
    memory();
    newer();
    fflush(stdout);
    syscall(SYS_exit, 3);
}
