// Shows what it was started with: arguments, environment, kernel, processor; reads a file, uses stack.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/utsname.h>
#include <unistd.h>

static int use(int mib) {
    volatile char room[1 << 20];
    room[0] = (char)mib;
    return (mib > 1 ? use(mib - 1) : 0) + room[0];
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "-elsewhere")) { // in another folder, with the rest of the arguments
        argv[1] = argv[0];
        return chdir("/") || execv("/proc/self/exe", argv + 1);
    }
    struct utsname name;
    uname(&name);
    printf("argv0=%s\nargs=", argv[0]);
    for (int i = 1; i < argc; i++) printf("%s|", argv[i]);
    const char *value = argc > 1 ? getenv(argv[1]) : 0;
    printf("\nenv=%s\nrelease=%s\nmachine=%s\n", value ? value : "(none)", name.release, name.machine);
    printf("atomics=%d\n", (int)(getauxval(AT_HWCAP) >> 8 & 1));
    struct sigaction act;
    sigaction(SIGPIPE, 0, &act);
    printf("sigpipe=%d\n", act.sa_handler == SIG_IGN);
    if (argc > 2 && !strcmp(argv[1], "-stack")) return use(atoi(argv[2])) == 0;
    if (argc > 2 && !strcmp(argv[1], "-read")) {
        char text[100] = "";
        FILE *f = fopen(argv[2], "r");
        if (!f || !fgets(text, sizeof text, f)) return 1;
        printf("read=%s\n", text);
    }
}
