// Two threads that count, for ever: for clients that come, go and vanish.
#include <pthread.h>
#include <unistd.h>

volatile unsigned long counters[2];

__attribute__((noinline)) void second(void) {
    for (;;) counters[1]++;
}

__attribute__((noinline)) void first(void) {
    for (;;) counters[0]++;
}

static void *thread(void *p) {
    second();
    return p;
}

int main(void) {
    pthread_t t;
    pthread_create(&t, 0, thread, 0);
    first();
}
