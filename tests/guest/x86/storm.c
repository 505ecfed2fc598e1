// Many processes made at once, from several threads, while timers interrupt: vfork, fork, posix_spawn, exec from a
// thread that is not the first.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 12
extern char **environ;
static char self[4096];
static atomic_int ended, wrong, alarms;
static atomic_int stop;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long guarded[2];

static void on_alarm(int sig) { (void)sig, alarms++; }

static void *maker(void *arg) {
    int me = (int)(intptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        char word[16];
        int status, code = (me * ROUNDS + i) & 0x7f;
        snprintf(word, sizeof word, "%d", code);
        char *args[] = {"child", word, 0};
        volatile int kept = code;
        pid_t pid;
        switch ((me + i) % 4) {
        case 0: // The child of vfork changes the parent's memory and executes.
            if ((pid = vfork()) == 0) {
                kept++;
                execve(self, args, environ);
                _exit(126);
            }
            if (kept != code + 1) wrong++;
            break;
        case 1:
            if ((pid = vfork()) == 0) _exit(code);
            break;
        case 2:
            if ((pid = fork()) == 0) {
                execve(self, args, environ);
                _exit(125);
            }
            break;
        default:
            if (posix_spawn(&pid, self, 0, 0, args, environ)) wrong++;
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != code) wrong++;
        else ended++;
        // An exec that fails leaves everything as it was.
        if ((pid = vfork()) == 0) {
            execve("/nonexistent", args, environ);
            _exit(errno == ENOENT ? 3 : 4);
        }
        if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 3) wrong++;
    }
    return 0;
}

// Threads that live beside, with a lock and locked instructions.
static void *worker(void *arg) {
    (void)arg;
    while (!stop) {
        pthread_mutex_lock(&lock);
        guarded[0]++, guarded[1]--;
        if (guarded[0] + guarded[1]) wrong++;
        pthread_mutex_unlock(&lock);
        free(malloc(100 + guarded[0] % 5000));
    }
    return 0;
}

static void *executes(void *arg) {
    char text[16];
    snprintf(text, sizeof text, "%d", (int)(intptr_t)arg);
    execl(self, "child", "pid", text, (char *)0);
    _exit(124);
}

int main(int argc, char **argv) {
    // A program that is executed has no handlers and the mask it was given.
    if (argc > 2) return getpid() == atoi(argv[2]) ? 21 : 22;
    if (argc > 1) return atoi(argv[1]);
    if (readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return 1;
    struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &sa, 0);
    struct itimerval every = {{0, 2000}, {0, 2000}};
    pthread_t makers[3], workers[2];
    for (int i = 0; i < 2; i++) pthread_create(&workers[i], 0, worker, 0);
    for (int i = 0; i < 3; i++) pthread_create(&makers[i], 0, maker, (void *)(intptr_t)i);
    setitimer(ITIMER_REAL, &every, 0);
    for (int i = 0; i < 3; i++) pthread_join(makers[i], 0);
    every.it_value.tv_usec = 0;
    setitimer(ITIMER_REAL, &every, 0);
    printf("%d ended as they should, %d wrong, alarms %s\n", ended, wrong, alarms > 0 ? "came" : "NONE");
    // The process goes on under its number when another thread executes.
    int right = 0;
    for (int i = 0; i < 5; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            pthread_t t, u;
            stop = 0;
            pthread_mutex_init(&lock, 0);
            pthread_create(&u, 0, worker, 0);
            pthread_create(&t, 0, executes, (void *)(intptr_t)getpid());
            pthread_join(u, 0);
            _exit(123);
        }
        waitpid(pid, &status, 0);
        right += WIFEXITED(status) && WEXITSTATUS(status) == 21;
    }
    printf("exec of a thread: %d of 5\n", right);
    stop = 1;
    for (int i = 0; i < 2; i++) pthread_join(workers[i], 0);
    return wrong;
}
