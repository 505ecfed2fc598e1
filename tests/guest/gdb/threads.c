// Threads, a signal, system calls, a fork: what tests/gdb.rs looks at.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

volatile int handled, global = 1, waiting = 1;
double number = 2.5;

static void on_signal(int signal) { handled += signal; }

__attribute__((noinline)) int work(int i) { global += i; return global * 2; }
__attribute__((noinline)) int forked(int pid) { return pid > 0; }

static void *thread(void *p) {
    pthread_setname_np(pthread_self(), "worker");
    int sum = 0;
    for (int i = 0; i < 1000; i++) sum += work(0);
    pause();
    return p;
}

int main(int argc, char **argv) {
    pthread_t t;
    char from[64], to[64];
    memset(from, 'x', 64);
    int sum = 0;
    for (int i = 0; i < 10000; i++) sum += work(i & 3);
    memcpy(to, from, 64);
    printf("%d %g %c\n", sum, number, to[63]);
    fflush(stdout);
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    printf("handled %d\n", handled);
    fflush(stdout);
    int pid = fork();
    if (pid == 0) _exit(work(0) != 0 ? 3 : 4);
    int status = 0;
    waitpid(pid, &status, 0);
    printf("child %d %d\n", WEXITSTATUS(status), forked(pid));
    fflush(stdout);
    if (argc > 1) {
        pthread_create(&t, 0, thread, 0);
        pthread_join(t, 0);
    }
    return 7;
}
