// Kernel-heavy work for benches/pc.py, one kind per name: system NAME COUNT [WORKERS].
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *self;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void fork_exit(long n) {
    while (n--) {
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child == 0) _exit(0);
        waitpid(child, 0, 0);
    }
}

static void fork_exec(long n) {
    while (n--) {
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child == 0) {
            execl(self, self, "nothing", "0", (char *)0);
            _exit(1);
        }
        int status;
        waitpid(child, &status, 0);
        if (status) fail("exec");
    }
}

// Two processes on one processor, each waiting for the other.
static void context_switch(long n) {
    int to[2], from[2];
    char byte = 0;
    if (pipe(to) || pipe(from)) fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        while (n-- && read(to[0], &byte, 1) == 1 && write(from[1], &byte, 1) == 1) {}
        _exit(0);
    }
    while (n--)
        if (write(to[1], &byte, 1) != 1 || read(from[0], &byte, 1) != 1) fail("pipe");
    waitpid(child, 0, 0);
}

static void page_faults(long n) {
    enum { PAGES = 256 };
    while (n--) {
        char *p = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) fail("mmap");
        for (int i = 0; i < PAGES; i++) p[i * 4096] = 1;
        munmap(p, PAGES * 4096);
    }
}

static void system_calls(long n) {
    while (n--) syscall(SYS_getppid);
}

static void pipes(long n) {
    static char block[65536];
    int ends[2];
    if (pipe(ends)) fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        while (n--)
            if (write(ends[1], block, sizeof block) != sizeof block) _exit(1);
        _exit(0);
    }
    close(ends[1]);
    while (read(ends[0], block, sizeof block) > 0) {}
    waitpid(child, 0, 0);
}

// Dependent loads over 64 MiB: misses every TLB.
static void random_memory(long n) {
    size_t words = (64 << 20) / 8;
    uint64_t *p = mmap(0, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) fail("mmap");
    uint64_t x = 1;
    for (size_t i = 0; i < words; i++) p[i] = x = x * 6364136223846793005u + 1442695040888963407u;
    for (long i = 0; i < n * 1000; i++) x = p[(x >> 30) % words] + i;
    printf("%016llx\n", (unsigned long long)x);
}

static void compute(long n) {
    uint64_t x = 88172645463325252u, sum = 0;
    for (long i = 0; i < n * 1000000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        sum += x % 1000;
    }
    printf("%016llx\n", (unsigned long long)sum);
}

static void nothing(long n) { (void)n; }

static const struct {
    const char *name;
    void (*run)(long n);
} kinds[] = {
    {"fork", fork_exit},        {"exec", fork_exec}, {"switch", context_switch}, {"faults", page_faults}, {"syscalls", system_calls},
    {"pipe", pipes},            {"random", random_memory}, {"compute", compute}, {"nothing", nothing},
};

int main(int argc, char **argv) {
    self = "/bin/system";
    for (size_t i = 0; argc >= 3 && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(argv[1], kinds[i].name)) continue;
        int workers = argc > 3 ? atoi(argv[3]) : 1;
        for (int w = 1; w < workers; w++)
            if (fork() == 0) {
                kinds[i].run(atol(argv[2]));
                return 0;
            }
        kinds[i].run(atol(argv[2]));
        while (wait(0) > 0) {}
        return 0;
    }
    fprintf(stderr, "usage: system NAME COUNT [WORKERS]\n");
    return 2;
}
