# The compiler driver with its children: cpp, cc1, as, collect2, ld; then what they made.
export TMPDIR=$PWD LC_ALL=C
cat >prog.c <<'C'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static long sums[4];
static void *sum(void *n) {
    for (long i = (long)n; i < 400000; i += 4) sums[(long)n] += i * i % 7;
    return 0;
}
static int compare(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
int main(int argc, char **argv) {
    pthread_t t[4];
    for (long n = 0; n < 4; n++) pthread_create(&t[n], 0, sum, (void *)n);
    for (int n = 0; n < 4; n++) pthread_join(t[n], 0);
    printf("%ld %ld %ld %ld %.10f\n", sums[0], sums[1], sums[2], sums[3], 22 / 7.0);
    qsort(argv + 1, argc - 1, sizeof *argv, compare);
    while (*++argv) puts(*argv);
    return 12;
}
C
for level in -O0 "-O2 -g -fsanitize=undefined" "-Os -static"; do
    gcc-12 $level -Wall -pthread prog.c -o prog; echo "gcc $level: $?"
    ./prog pear fig apple; echo "exit $?"
done
echo 'int f(int x) { return x +; }' | gcc-12 -c -x c - 2>&1; echo "error $?"
echo 'extern int g(void); int main(void) { return g(); }' | gcc-12 -x c - 2>&1 | grep -c 'undefined reference'
gcc-12 -c -O1 prog.c && ar rc libp.a prog.o && nm libp.a | grep -c ' T main'
gcc-12 -pipe -S -O2 prog.c -o - | gcc-12 -x assembler - -pthread -o prog && ./prog two one
