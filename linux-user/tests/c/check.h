// Prints each expression with its result and errno, so that the same program on two machines can be compared.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define T(e)                                                                                       \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long r_ = (long)(e);                                                                       \
        if (r_ == -1 && errno)                                                                     \
            printf("%s: %s -> %s\n", __func__, #e, strerror(errno));                               \
        else                                                                                       \
            printf("%s: %s = %ld\n", __func__, #e, r_);                                            \
    } while (0)
// For results that differ from run to run: only whether it holds.
#define OK(e) printf("%s: %s: %s\n", __func__, #e, (e) ? "yes" : "NO")
#define BAD ((void *)16)
