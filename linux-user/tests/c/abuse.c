// Asks for every change of memory that is the translator's, not the guest's. Nothing may come of it.
// Only run as a guest: natively the listed mappings would be its own.
#include "check.h"
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#define MAX 512
static unsigned long ranges[MAX][2];
static int count;

// Mappings of the host process as the host shows them (smaps is not rewritten), without what is the guest's.
static void list(void) {
    static unsigned long own[MAX][2];
    int owned = 0;
    count = 0;
    char line[512];
    FILE *f = fopen("/proc/self/maps", "r");
    while (owned < MAX && fgets(line, sizeof line, f))
        if (sscanf(line, "%lx-%lx ", &own[owned][0], &own[owned][1]) == 2)
            owned++;
    fclose(f);
    f = fopen("/proc/self/smaps", "r");
    while (count < MAX && fgets(line, sizeof line, f)) {
        unsigned long a, b;
        char perms[8];
        if (sscanf(line, "%lx-%lx %7s", &a, &b, perms) != 3 || perms[3] != 'p' && perms[3] != 's')
            continue;
        int mine = 0;
        for (int i = 0; i < owned; i++)
            mine |= a < own[i][1] && own[i][0] < b;
        if (!mine && a < 1ul << 47)
            ranges[count][0] = a, ranges[count][1] = b, count++;
    }
    fclose(f);
}

static int refused, harmless, tried;

static void attack(void) {
    list();
    int shm = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
    refused = harmless = tried = 0;
    unsigned char vec[64];
    for (int i = 0; i < count; i++) {
        unsigned long a = ranges[i][0], len = ranges[i][1] - a;
        // Some memory has been given back to the host since it was listed.
        if (mmap((void *)a, len, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == (void *)a) {
            munmap((void *)a, len);
            continue;
        }
        tried++;
        void *p = (void *)a, *page = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int whole = 0; whole < 2; whole++) {
            unsigned long n = whole ? len : 4096;
            refused += mmap(p, n, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED;
            refused += mmap(p, n, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED;
            refused += mprotect(p, n, PROT_NONE) == -1;
            refused += madvise(p, n, MADV_DONTNEED) == -1;
            refused += msync(p, n, MS_INVALIDATE) == -1;
            refused += mlock(p, n) == -1;
            refused += mincore(p, 4096, vec) == -1;
            refused += mremap(p, n, 2 * n, MREMAP_MAYMOVE) == MAP_FAILED;
            refused += mremap(page, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, p) == MAP_FAILED;
            refused += shmat(shm, p, SHM_REMAP) == (void *)-1;
            refused += shmdt(p) == -1;
            refused += syscall(SYS_brk, a + n) != a + n;
            // Unmapping what is not mapped succeeds and does nothing.
            harmless += munmap(p, n) == 0;
        }
        munmap(page, 4096);
    }
    shmctl(shm, IPC_RMID, 0);
}

int main(void) {
    // A part of the host's memory may go while it is tried.
    for (int again = 0; again < 4 && (!again || refused != tried * 24); again++) attack();
    // One request over everything.
    munmap((void *)0x500000000000, (1ul << 47) - 0x500000000000 - 4096);
    OK(mmap((void *)0x500000000000, 0x2fff00000000, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED);
    OK(tried > 10);
    OK(refused == tried * 24);
    OK(harmless == tried * 2);
    printf("alive\n");
}
