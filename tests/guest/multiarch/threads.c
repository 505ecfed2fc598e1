// Threads, locks, condition variables, atomics, thread-local storage, cancellation, barriers.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 20000 };
static atomic_long a64;
static atomic_int a32;
static atomic_short a16;
static atomic_uchar a8;
static long plain;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread long local;
static atomic_flag spin = ATOMIC_FLAG_INIT;
static long under_spin;
static void *worker(void *arg) {
    long id = (long)arg;
    for (int i = 0; i < ROUNDS; i++) {
        atomic_fetch_add(&a64, id);
        atomic_fetch_sub(&a32, 1);
        atomic_fetch_xor(&a16, 1);
        atomic_fetch_add(&a8, 1);
        local += id;
        if (i % 4 == 0) {
            pthread_mutex_lock(&lock);
            plain += 1;
            pthread_mutex_unlock(&lock);
        }
        while (atomic_flag_test_and_set_explicit(&spin, memory_order_acquire)) sched_yield();
        under_spin++;
        atomic_flag_clear_explicit(&spin, memory_order_release);
    }
    return (void *)local;
}

static pthread_cond_t ready = PTHREAD_COND_INITIALIZER;
static int turn;
static void *ping(void *arg) {
    int me = (int)(intptr_t)arg;
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&lock);
        while (turn != me) pthread_cond_wait(&ready, &lock);
        turn = !me;
        pthread_cond_signal(&ready);
        pthread_mutex_unlock(&lock);
    }
    return 0;
}

static atomic_int cleaned;
static void cleanup(void *arg) { (void)arg; cleaned++; }
static void *brief(void *arg) {
    cleanup(arg);
    return 0;
}
static void *sleeper(void *arg) {
    pthread_cleanup_push(cleanup, arg);
    for (;;) sleep(100);
    pthread_cleanup_pop(0);
    return 0;
}

static pthread_barrier_t barrier;
static atomic_int phase[3];
static void *phases(void *arg) {
    (void)arg;
    int good = 1;
    for (int p = 0; p < 3; p++) {
        atomic_fetch_add(&phase[p], 1);
        pthread_barrier_wait(&barrier);
        good &= phase[p] == THREADS;
        pthread_barrier_wait(&barrier);
    }
    return (void *)(intptr_t)good;
}

// Message passing litmus: data written before the flag with release must be seen after acquire. A thousand times, and on a
// machine that has time for it more.
static atomic_int flag;
static int late(time_t start) { return time(0) > start + 2; }
static int data;
static void *sender(void *arg) {
    (void)arg;
    time_t start = time(0);
    for (int i = 1; i <= 20000 && (i <= 1000 || !late(start)); i++) {
        while (atomic_load_explicit(&flag, memory_order_acquire)) sched_yield();
        data = i;
        atomic_store_explicit(&flag, 1, memory_order_release);
    }
    while (atomic_load_explicit(&flag, memory_order_acquire)) sched_yield();
    atomic_store_explicit(&flag, 2, memory_order_release);
    return 0;
}
static void *receiver(void *arg) {
    (void)arg;
    intptr_t bad = 0;
    for (int i = 1;; i++) {
        int now;
        while (!(now = atomic_load_explicit(&flag, memory_order_acquire))) sched_yield();
        if (now == 2) break;
        bad += data != i;
        atomic_store_explicit(&flag, 0, memory_order_release);
    }
    return (void *)bad;
}

static volatile sig_atomic_t poked;
static void poke(int sig) { (void)sig; poked = 1; }
static void *spinner(void *arg) {
    (void)arg;
    while (!poked) {}
    return (void *)77;
}

int main(void) {
    pthread_t t[THREADS];
    void *result;
    long sum = 0;
    for (long i = 0; i < THREADS; i++) pthread_create(&t[i], 0, worker, (void *)i);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], &result), sum += (long)result;
    printf("a64 %ld a32 %d a16 %d a8 %d plain %ld spin %ld tls %ld\n", (long)a64, (int)a32, (int)a16, (int)a8, plain, under_spin, sum);

    pthread_create(&t[0], 0, ping, (void *)0);
    pthread_create(&t[1], 0, ping, (void *)1);
    pthread_join(t[0], 0), pthread_join(t[1], 0);
    printf("ping-pong done, turn %d\n", turn);

    for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, sleeper, 0);
    usleep(20000);
    for (int i = 0; i < 4; i++) pthread_cancel(t[i]);
    int cancelled = 0;
    for (int i = 0; i < 4; i++) pthread_join(t[i], &result), cancelled += result == PTHREAD_CANCELED;
    printf("cancelled %d cleaned %d\n", cancelled, (int)cleaned);

    pthread_barrier_init(&barrier, 0, THREADS);
    for (int i = 0; i < THREADS; i++) pthread_create(&t[i], 0, phases, 0);
    int good = 0;
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], &result), good += (int)(intptr_t)result;
    printf("barrier %d\n", good);

    pthread_create(&t[0], 0, sender, 0);
    pthread_create(&t[1], 0, receiver, 0);
    pthread_join(t[0], 0), pthread_join(t[1], &result);
    printf("litmus bad %ld\n", (long)(intptr_t)result);

    signal(SIGUSR1, poke);
    pthread_create(&t[0], 0, spinner, 0);
    usleep(30000);
    pthread_kill(t[0], SIGUSR1);
    pthread_join(t[0], &result);
    printf("spinning thread got its signal: %ld\n", (long)(intptr_t)result);

    sem_t sem;
    sem_init(&sem, 0, 0);
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    printf("semaphore times out: %d\n", sem_timedwait(&sem, &ts));
    pthread_mutexattr_t attr;
    pthread_mutex_t pi;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&pi, &attr);
    printf("pi mutex: %d\n", pthread_mutex_lock(&pi));
    printf("pi mutex: %d\n", pthread_mutex_unlock(&pi));
    for (int i = 0; i < 300; i++) {
        pthread_create(&t[0], 0, brief, 0);
        pthread_join(t[0], 0);
    }
    printf("many short threads: %d\n", (int)cleaned);
    return 0;
}
