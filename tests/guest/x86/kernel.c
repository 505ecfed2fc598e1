// What only x86 kernels have: three ways into the kernel, segments, the first calls of old C libraries.
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SHOW(e) do { errno = 0; long r_ = (long)(e); printf("%s = %ld errno %d\n", #e, r_, errno); } while (0)
#define IS(e) printf("%s: %s\n", #e, (e) ? "yes" : "NO")

static long int80(long n, long a, long b, long c, long d, long e) {
    long r;
#ifdef __x86_64__
    asm volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "r8", "r9", "r10", "r11");
#else
    asm volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
#endif
    return r;
}

static volatile int handled;
static void on_alarm(int sig) { handled = sig; }

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    char dir[] = "/tmp/x86-kernel-XXXXXX";
    if (!mkdtemp(dir) || chdir(dir)) return 1;
    struct utsname u;
    uname(&u);
    IS(getauxval(AT_HWCAP) != 0);
    IS(getauxval(AT_PLATFORM) != 0 && strlen((char *)getauxval(AT_PLATFORM)) > 3);

    // The 32-bit interface, from both kinds of programs; buffers must be low.
    char *low = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | 0x40, -1, 0);
#ifdef __x86_64__
    IS((uintptr_t)low < 0x80000000u);
#endif
    strcpy(low, "from int 0x80\n");
    SHOW(int80(4, 1, (long)low, 14, 0, 0));
    IS(int80(20, 0, 0, 0, 0, 0) == getpid());
    SHOW(int80(6, 999, 0, 0, 0, 0));
    SHOW(int80(100000, 0, 0, 0, 0, 0));
    strcpy(low, "file");
    SHOW(int80(8, (long)low, 0640, 0, 0, 0)); // creat
    SHOW(int80(4, 3, (long)low, 4, 0, 0));
    SHOW(int80(140, 3, 1, 2, (long)(low + 512), SEEK_SET)); // _llseek
    printf("position %#llx\n", *(long long *)(low + 512));
    SHOW(int80(19, 3, 1, 0, SEEK_SET, 0));
    memset(low + 1024, 0xaa, 256);
    SHOW(int80(106, (long)low, (long)(low + 1024), 0, 0, 0)); // stat
    printf("mode %o links %d size %d\n", *(uint16_t *)(low + 1032), *(uint16_t *)(low + 1034), *(int *)(low + 1044));
    SHOW(int80(195, (long)low, (long)(low + 1024), 0, 0, 0)); // stat64
    printf("mode %o size %lld\n", *(uint32_t *)(low + 1040), *(long long *)(low + 1068));
    SHOW(int80(38, (long)low, (long)strcpy(low + 64, "renamed"), 0, 0, 0));
    SHOW(int80(33, (long)(low + 64), 0, 0, 0, 0));
    SHOW(int80(10, (long)(low + 64), 0, 0, 0, 0));
    SHOW(int80(6, 3, 0, 0, 0, 0));
    IS(labs(int80(13, 0, 0, 0, 0, 0) - time(0)) < 2);
    memset(low, 0, 256);
    SHOW(int80(78, (long)low, (long)(low + 16), 0, 0, 0)); // gettimeofday
    IS(labs(*(int *)low - time(0)) < 2);
    SHOW(int80(265, CLOCK_REALTIME, (long)low, 0, 0, 0));
    IS(labs(*(int *)low - time(0)) < 2 && *(unsigned *)(low + 4) < 1000000000);
    memset(low, 0xff, 16);
    SHOW(int80(403, CLOCK_REALTIME, (long)low, 0, 0, 0)); // clock_gettime64
    IS(llabs(*(long long *)low - time(0)) < 2 && *(unsigned long long *)(low + 8) < 1000000000);
    int *words = (int *)low;
    words[0] = 0, words[1] = 1000000;
    SHOW(int80(162, (long)low, 0, 0, 0, 0)); // nanosleep
    SHOW(int80(76, 7, (long)low, 0, 0, 0)); // getrlimit
    IS(words[0] > 0);
    words[0] = 1, words[1] = 1, words[2] = 0, words[3] = (int)(uintptr_t)(low + 64);
    SHOW(int80(102, 8, (long)low, 0, 0, 0)); // socketpair
    int pair[2] = {*(int *)(low + 64), *(int *)(low + 68)};
    words[0] = pair[0], words[1] = (int)(uintptr_t)strcpy(low + 128, "data"), words[2] = 4, words[3] = 0;
    SHOW(int80(102, 9, (long)low, 0, 0, 0));
    words[0] = pair[1], words[1] = (int)(uintptr_t)(low + 256), words[2] = 10, words[3] = 0;
    SHOW(int80(102, 10, (long)low, 0, 0, 0));
    printf("received %.4s\n", low + 256);
    // A message with a descriptor in it.
    words[0] = 0, words[1] = 0, words[2] = (int)(uintptr_t)(low + 64), words[3] = 1, words[4] = (int)(uintptr_t)(low + 80), words[5] = 16, words[6] = 0;
    *(int *)(low + 64) = (int)(uintptr_t)(low + 128), *(int *)(low + 68) = 4;
    *(int *)(low + 80) = 16, *(int *)(low + 84) = 1, *(int *)(low + 88) = 1, *(int *)(low + 92) = pair[0];
    SHOW(int80(370, pair[0], (long)low, 0, 0, 0));
    memset(low + 80, 0, 48);
    words[5] = 32;
    SHOW(int80(372, pair[1], (long)low, 0, 0, 0));
    printf("control %d: %d %d %d, a new descriptor %d\n", words[5], *(int *)(low + 80), *(int *)(low + 84), *(int *)(low + 88),
           *(int *)(low + 92) > pair[1]);
    // System V shared memory and semaphores through `ipc`.
    long shm = int80(117, 23, 0, 4096, 01600, 0);
    IS(shm >= 0);
    SHOW(int80(117, 2, 0, 1, 01600, 0) >= 0);
    IS(int80(117, 21, shm, 0, (long)(low + 300), 0) == 0);
    IS(int80(117, 24 | 0, shm, 2 | 0x100, 0, (long)(low + 512)) == 0);
    printf("segment of %d bytes, %d attached\n", *(int *)(low + 512 + 36), *(int *)(low + 512 + 36 + 36));
#ifdef __i386__
    IS(int80(117, 22, 0, 0, 0, *(int *)(low + 300)) == 0);
#endif
    int80(117, 24, shm, 0, 0, 0);

#ifdef __i386__
    // SYSENTER by what AT_SYSINFO names, where the kernel tells it.
    if (getauxval(32)) {
        long pid;
        asm volatile("call *%1" : "=a"(pid) : "r"(getauxval(32)), "0"(20) : "memory", "cc");
        IS(pid == getpid());
    }
    // Calls of the 16-bit age.
    IS(int80(24, 0, 0, 0, 0, 0) == (long)getuid() && int80(47, 0, 0, 0, 0, 0) == (long)getgid());
    SHOW(int80(68, 0, 0, 0, 0, 0));
    SHOW(int80(69, 1 << (SIGUSR1 - 1), 0, 0, 0, 0));
    SHOW(int80(68, 0, 0, 0, 0, 0));
    SHOW(int80(69, 0, 0, 0, 0, 0));
    SHOW(int80(48, SIGALRM, (long)on_alarm, 0, 0, 0)); // signal
    raise(SIGALRM);
    IS(handled == SIGALRM);
    SHOW(int80(48, SIGALRM, (long)on_alarm, 0, 0, 0)); // was reset
    struct { void *handler; unsigned long mask, flags; void *restorer; } old = {on_alarm, 0, 0, 0}, seen;
    SHOW(int80(67, SIGUSR2, (long)&old, 0, 0, 0)); // sigaction, without a restorer
    SHOW(int80(67, SIGUSR2, 0, (long)&seen, 0, 0));
    IS(seen.handler == (void *)on_alarm);
    handled = 0;
    raise(SIGUSR2);
    IS(handled == SIGUSR2);
    unsigned map_args[6] = {0, 8192, 3, 0x22, -1, 0};
    IS((unsigned)int80(90, (long)map_args, 0, 0, 0, 0) < 0xfffff000u);
    long now[2];
    SHOW(int80(25, 0, 0, 0, 0, 0) != 0);
    (void)now;
    char names[5 * 65];
    SHOW(int80(109, (long)names, 0, 0, 0, 0));
    printf("%s\n", names);
#endif

    // Local descriptors.
    static int cell[4] = {11, 22, 33, 44};
    struct user_desc d = {.entry_number = 3, .base_addr = (unsigned)(uintptr_t)low, .limit = 0xfff, .seg_32bit = 1, .useable = 1};
    memcpy(low, cell, sizeof cell);
    SHOW(syscall(SYS_modify_ldt, 0x11, &d, sizeof d));
    unsigned short selector = 3 << 3 | 7, before;
    int value = 0;
    asm volatile("movw %%gs, %1; movw %2, %%gs; movl %%gs:8, %0" : "=&r"(value), "=&r"(before) : "r"(selector) : "memory");
#ifdef __i386__
    asm volatile("movw %0, %%gs" ::"r"(before));
#endif
    printf("through the LDT: %d\n", value);
    unsigned limit = 0;
    asm volatile("lsl %1, %0" : "=r"(limit) : "r"((unsigned)selector));
    printf("limit %#x\n", limit);
    unsigned char ldt[64];
    SHOW(syscall(SYS_modify_ldt, 0, ldt, sizeof ldt) > 0);
#ifdef __i386__
    struct user_desc tls = {.entry_number = -1, .base_addr = (unsigned)(uintptr_t)low + 4, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1, .useable = 1};
    SHOW(syscall(SYS_set_thread_area, &tls));
    asm volatile("movw %w1, %%fs; movl %%fs:4, %0" : "=r"(value) : "r"(tls.entry_number << 3 | 3) : "memory");
    printf("through the GDT: %d\n", value);
    struct user_desc got = {.entry_number = tls.entry_number};
    SHOW(syscall(SYS_get_thread_area, &got));
    IS(got.base_addr == tls.base_addr && got.limit == tls.limit && got.seg_32bit && got.limit_in_pages);
#else
    unsigned long base = 0;
    SHOW(syscall(SYS_arch_prctl, 0x1001, low + 8));
    asm volatile("movl %%gs:4, %0" : "=r"(value)::"memory");
    printf("through gs: %d\n", value);
    SHOW(syscall(SYS_arch_prctl, 0x1004, &base));
    IS(base == (unsigned long)low + 8);
    SHOW(syscall(SYS_arch_prctl, 0x1001, 1ul << 60));
    // The vsyscall page.
    struct timeval tv = {0, 0};
    long (*vgettimeofday)(struct timeval *, void *) = (void *)0xffffffffff600000;
    long (*vtime)(long *) = (void *)0xffffffffff600400;
    SHOW(vgettimeofday(&tv, 0));
    IS(labs(tv.tv_sec - time(0)) < 2);
    IS(labs(vtime(0) - time(0)) < 2);
    // Calls that newer machines do not have.
    SHOW(syscall(SYS_open, "legacy", O_CREAT | O_RDWR, 0600) >= 0);
    struct stat st;
    SHOW(syscall(SYS_lstat, "legacy", &st));
    SHOW(syscall(SYS_rename, "legacy", "new"));
    SHOW(syscall(SYS_access, "new", R_OK));
    SHOW(syscall(SYS_unlink, "new"));
    SHOW(syscall(SYS_mkdir, "d", 0700));
    SHOW(syscall(SYS_rmdir, "d"));
    SHOW(syscall(SYS_time, 0) > 0);
    SHOW(syscall(SYS_getpgrp) == getpgrp());
    SHOW(syscall(SYS_alarm, 100));
    SHOW(syscall(SYS_alarm, 0) > 90);
#endif
    // Directories: every position can be gone back to.
    for (int i = 0; i < 40; i++) {
        char name[20];
        snprintf(name, sizeof name, "entry%d", i);
        close(open(name, O_CREAT | O_WRONLY, 0600));
    }
    DIR *dirp = opendir(".");
    struct dirent *entry;
    long positions[64];
    char list[64][32];
    int n = 0;
    for (positions[0] = telldir(dirp); n < 63 && (entry = readdir(dirp)); positions[++n] = telldir(dirp)) strcpy(list[n], entry->d_name);
    int good = 0;
    for (int i = n - 1; i >= 0; i--) {
        seekdir(dirp, positions[i]);
        entry = readdir(dirp);
        good += entry && strcmp(entry->d_name, list[i]) == 0;
    }
    printf("%d entries, %d found again\n", n, good);
    closedir(dirp);
    pid_t pid = vfork();
    if (pid == 0) _exit(9);
    int status;
    waitpid(pid, &status, 0);
    printf("vfork: %d\n", WEXITSTATUS(status));
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}
