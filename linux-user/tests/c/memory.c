#include "check.h"
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>

#define P 4096
static char buf[65536];
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static void mappings(void) {
    char *p = mmap(0, 8 * P, RW, ANON, -1, 0);
    OK(p != MAP_FAILED);
    p[5 * P] = 42;
    T(munmap(p + P, P));
    T(mprotect(p, 3 * P, PROT_READ));
    T(mprotect(p + 2 * P, P, RW));
    T(mprotect(p + 1, P, RW));
    T(mprotect(p + 2 * P, P, 0x80));
    OK(mmap(p + P, P, RW, ANON | MAP_FIXED, -1, 0) == p + P);
    T(mmap(p + P, P, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    T(mmap(p + 1, P, RW, ANON | MAP_FIXED, -1, 0));
    T(mmap(0, 0, RW, ANON, -1, 0));
    T(mmap(0, P, RW, 0, -1, 0));
    T(mmap(0, P, RW, MAP_PRIVATE, -1, 0));
    T(mmap(0, P, RW, MAP_PRIVATE, 0, 5));
    T(mmap(0, 1ul << 60, RW, ANON, -1, 0));
    T(munmap(p + 1, P));
    T(munmap(p, 0));
    char *q = mremap(p + 2 * P, 6 * P, 60 * P, MREMAP_MAYMOVE);
    OK(q != MAP_FAILED && q[3 * P] == 42);
    T(mremap(q, 60 * P, 2 * P, 0) == q);
    T(mremap(q, 2 * P, 3 * P, MREMAP_FIXED));
    unsigned char vec[4];
    q[0] = 1;
    T(mincore(q, P, vec));
    T(vec[0] & 1);
    T(mincore(q + 1, P, vec));
    T(msync(q, 2 * P, MS_SYNC));
    T(madvise(q, P, MADV_DONTNEED));
    T(q[0]);
    T(madvise(q + 1, P, MADV_DONTNEED));
    T(madvise(q, P, 12345));
    T(mlock(q, P));
    T(munlock(q, P));
    T(munmap(q, 2 * P));
    T(madvise(q, P, MADV_NORMAL));
    T(msync(q, P, MS_ASYNC));
    T(mprotect(q, P, PROT_READ));
    int fd = open("m", O_RDWR | O_CREAT | O_TRUNC, 0600);
    T(ftruncate(fd, 2 * P));
    char *f = mmap(0, 2 * P, RW, MAP_SHARED, fd, 0);
    f[P] = 'x';
    T(pread(fd, buf, 1, P));
    T(buf[0]);
    char *g = mmap(0, P, PROT_READ, MAP_PRIVATE, fd, P);
    T(g[0]);
    f[P] = 'y';
    T(g[0]);
    int ro = open("m", O_RDONLY);
    T(mmap(0, P, RW, MAP_SHARED, ro, 0));
    T(munmap(f, 2 * P));
    T(munmap(g, P));
    close(fd), close(ro);
}

static void heap(void) {
    char *start = sbrk(0);
    OK(sbrk(100000) == start);
    start[99999] = 1;
    OK(sbrk(-100000) != (void *)-1);
    OK(sbrk(0) == start);
    void *big[50];
    for (int i = 0; i < 50; i++)
        memset(big[i] = malloc(1 << (i % 20)), i, 1 << (i % 20));
    for (int i = 0; i < 50; i++)
        free(big[i]);
}

static void faults(void) {
    char *ro = mmap(0, 2 * P, PROT_READ, ANON, -1, 0);
    int fd = open("/dev/zero", O_RDONLY);
    T(read(fd, ro, 10));
    T(mprotect(ro + P, P, RW));
    T(read(fd, ro + P - 1, 10));
    T(read(fd, ro + P, 10));
    struct timespec ts;
    T(syscall(SYS_clock_gettime, CLOCK_REALTIME, ro));
    T(syscall(SYS_clock_gettime, CLOCK_REALTIME, BAD));
    T(syscall(SYS_clock_gettime, 99, &ts));
    T(syscall(SYS_nanosleep, BAD, 0));
    T(syscall(SYS_uname, BAD));
    T(syscall(SYS_getrusage, RUSAGE_SELF, BAD));
    T(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, BAD, 0));
    T(syscall(SYS_pipe2, ro, 0));
    T(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, BAD));
    T(syscall(SYS_getcwd, BAD, 100));
    T(syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/cwd", BAD, 100));
    T(syscall(SYS_getdents64, open("/", O_RDONLY), BAD, 1000));
    T(syscall(SYS_epoll_ctl, syscall(SYS_epoll_create1, 0), 1, 0, BAD));
    T(syscall(SYS_ppoll, BAD, 1, 0, 0, 8));
    T(syscall(SYS_getrandom, BAD, 8, 0));
    T(syscall(SYS_writev, 1, BAD, 1));
    T(syscall(SYS_mkdirat, AT_FDCWD, BAD, 0));
    // A read across the end of what is mapped gives what there is.
    char *p = mmap(0, 2 * P, RW, ANON, -1, 0);
    T(munmap(p + P, P));
    int f2 = open("m", O_RDWR | O_CREAT | O_TRUNC, 0600);
    T(write(f2, p, 2 * P));
    struct iovec local = {buf, 16}, remote = {p, 16};
    strcpy(p, "own memory");
    T(process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
    printf("%s\n", buf);
    close(fd), close(f2);
}

static void shared(void) {
    int id = shmget(IPC_PRIVATE, 3 * P, IPC_CREAT | 0600);
    OK(id >= 0);
    char *a = shmat(id, 0, 0), *b = shmat(id, 0, SHM_RDONLY);
    OK(a != (void *)-1 && b != (void *)-1 && a != b);
    a[P] = 9;
    T(b[P]);
    struct shmid_ds ds;
    T(shmctl(id, IPC_STAT, &ds));
    T(ds.shm_segsz);
    T(ds.shm_nattch);
    T(ds.shm_perm.mode);
    T(shmdt(a));
    T(shmdt(a));
    T(shmctl(id, IPC_STAT, &ds));
    T(ds.shm_nattch);
    T(shmctl(id, IPC_RMID, 0));
    T(shmdt(b));
    T(shmat(id, 0, 0));
}

// The line of /proc/self/maps that holds an address.
static void line_of(void *at) {
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512], perms[8], name[256];
    while (fgets(line, sizeof line, f)) {
        unsigned long start, end;
        name[0] = 0;
        sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &start, &end, perms, name);
        if ((unsigned long)at >= start && (unsigned long)at < end) {
            char *base = strrchr(name, '/');
            printf("maps: %s %s\n", perms, base ? "(file)" : name);
        }
    }
    fclose(f);
}

static void proc(void) {
    int local;
    line_of(&local);
    line_of((void *)proc);
    line_of(sbrk(0) - 1);
    line_of(mmap(0, P, PROT_NONE, ANON, -1, 0));
    line_of(mmap(0, P, PROT_READ, MAP_SHARED, open("m", O_RDONLY), 0));
    int fd = open("/proc/self/cmdline", O_RDONLY);
    int n = read(fd, buf, sizeof buf);
    for (int i = strlen(buf) + 1; i < n; i += strlen(buf + i) + 1)
        printf("arg %s\n", buf + i);
    n = read(open("/proc/self/environ", O_RDONLY), buf, sizeof buf);
    OK(n > 0 && memmem(buf, n, "CHECK=1", 8));
    n = readlink("/proc/self/exe", buf, sizeof buf - 1);
    buf[n > 0 ? n : 0] = 0;
    char *base = strrchr(buf, '/');
    OK(base && strncmp(base, "/memory", 7) == 0);
    struct stat a, b;
    OK(stat("/proc/self/exe", &a) == 0 && stat(buf, &b) == 0 && a.st_ino == b.st_ino);
    fd = open("/proc/self/exe", O_RDONLY);
    T(read(fd, buf, 4));
    OK(memcmp(buf, "\177ELF", 4) == 0);
    n = read(open("/proc/self/stat", O_RDONLY), buf, sizeof buf - 1);
    buf[n] = 0;
    int pid;
    char comm[64];
    sscanf(buf, "%d (%63[^)]", &pid, comm);
    OK(pid == getpid() && strncmp(comm, "memory", 6) == 0);
    unsigned long aux[100];
    n = read(open("/proc/self/auxv", O_RDONLY), aux, sizeof aux);
    int pages = 0;
    for (int i = 0; i < n / 16; i++)
        if (aux[2 * i] == 6)
            pages = aux[2 * i + 1];
    T(pages);
}

int main(void) {
    mappings();
    heap();
    faults();
    shared();
    proc();
}
