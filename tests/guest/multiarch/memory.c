// mmap family, brk, protection faults seen through handlers, file mappings.
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int caught, code;
static void *volatile where;
static void on_fault(int sig, siginfo_t *info, void *context) {
    (void)context;
    caught = sig, code = info->si_code, where = info->si_addr;
    siglongjmp(back, 1);
}

static void probe(const char *what, volatile char *p, int write) {
    caught = 0;
    if (sigsetjmp(back, 1) == 0) {
        if (write) *p = 1;
        else (void)*p;
        printf("%s: fine\n", what);
    } else
        printf("%s: signal %d code %d address %s\n", what, caught, code, where == p ? "right" : "wrong");
}

int main(void) {
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &sa, 0);
    sigaction(SIGBUS, &sa, 0);
    size_t page = sysconf(_SC_PAGESIZE);
    char *p = mmap(0, 8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 'x', 8 * page);
    mprotect(p + page, page, PROT_READ);
    mprotect(p + 2 * page, page, PROT_NONE);
    munmap(p + 3 * page, page);
    probe("read of rw", p, 0);
    probe("write of rw", p, 1);
    probe("read of r", p + page, 0);
    probe("write of r", p + page + 5, 1);
    probe("read of none", p + 2 * page, 0);
    probe("read of unmapped", p + 3 * page + 7, 0);
    probe("write of unmapped", p + 3 * page, 1);
    probe("null", 0, 0);

    char *moved = mremap(p + 4 * page, 4 * page, 16 * page, MREMAP_MAYMOVE);
    printf("mremap kept %d\n", moved[4 * page - 1] == 'x' && moved[15 * page] == 0);
    printf("mremap bad: %d\n", mremap(p + 3 * page, page, page, 0) == MAP_FAILED && errno == EFAULT);
    printf("fixed noreplace: %d\n",
           mmap(p, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED && errno == EEXIST);
    printf("unaligned munmap: %d\n", munmap(p + 1, page) == -1 && errno == EINVAL);
    printf("zero length: %d\n", mmap(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);

    int fd = memfd_create("t", 0);
    if (ftruncate(fd, page) != 0) return 1;
    char *shared = mmap(0, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    strcpy(shared, "through the file");
    char buffer[32] = {0};
    if (pread(fd, buffer, sizeof buffer - 1, 0) < 0) return 1;
    printf("shared: %s\n", buffer);
    probe("past the end of the file", shared + page, 0);
    char *private = mmap(0, page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    private[0] = 'T';
    printf("private: %s / %s\n", private, shared);

    char *old = sbrk(0), *grown = sbrk(100000);
    memset(grown, 7, 100000);
    printf("brk grew: %d\n", grown == old && (char *)sbrk(0) == old + 100000);
    brk(old);
    printf("brk shrank: %d\n", sbrk(0) == old);
    char *again = sbrk(100000);
    printf("brk zeroed: %d\n", again[50000] == 0);

    volatile uintptr_t bad = 8;
    unsigned char vec[8];
    printf("mincore: %d\n", mincore(p, 2 * page, vec) == 0 && (vec[0] & 1));
    printf("madvise: %d\n", madvise(p, page, MADV_DONTNEED) == 0 && p[0] == 0);
    printf("read into bad pointer: %d\n", pread(fd, (void *)bad, 4, 0) == -1 && errno == EFAULT);
    void *big = malloc(64 << 20);
    memset(big, 1, 64 << 20);
    free(big);
    return 0;
}
