// What a signal does to each call that sleeps: a handler with SA_RESTART, one without, and a stop with continuation
// (signal(7), "Interruption of system calls and library functions by signal handlers").
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int fds[2], other, queue, set_id;
static volatile int *word;
static pid_t waited;
static char folder[] = "/tmp/interrupts-XXXXXX", path[200], buffer[1 << 16];
static volatile sig_atomic_t handled;
static void on_signal(int s) { handled = s; }

static void nothing(void) {}
static void make_pipe(void) { if (pipe(fds)) abort(); }
static void make_full_pipe(void) {
    make_pipe();
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    while (write(fds[1], buffer, 4096) > 0);
    fcntl(fds[1], F_SETFL, 0);
}
static void make_pair(void) { if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds)) abort(); }
static void make_timed_pair(void) {
    make_pair();
    struct timeval t = {20, 0};
    setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}
static struct sockaddr_un name(void) {
    struct sockaddr_un a = {AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s/socket", folder);
    return a;
}
static void make_listener(void) {
    struct sockaddr_un a = name();
    unlink(a.sun_path);
    fds[0] = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(fds[0], (void *)&a, sizeof a) || listen(fds[0], 1)) abort();
}
static void make_lock(void) { fds[0] = open(path, O_RDWR | O_CREAT, 0600); }
static void make_epoll(void) {
    make_pipe();
    struct epoll_event e = {EPOLLIN};
    other = epoll_create1(0);
    epoll_ctl(other, EPOLL_CTL_ADD, fds[0], &e);
}
static void make_eventfd(void) { fds[0] = eventfd(0, 0); }
static void make_timerfd(void) { fds[0] = timerfd_create(CLOCK_MONOTONIC, 0); }
static void make_inotify(void) { inotify_add_watch(fds[0] = inotify_init1(0), folder, IN_CREATE); }
static void make_signalfd(void) {
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGUSR2);
    fds[0] = signalfd(-1, &s, 0);
}
static void make_queue(void) { queue = msgget(IPC_PRIVATE, 0600); }
static void make_full_queue(void) {
    make_queue();
    struct { long type; char text[4096]; } m = {1};
    while (!msgsnd(queue, &m, sizeof m.text, IPC_NOWAIT));
}
static void make_sem(void) { set_id = semget(IPC_PRIVATE, 1, 0600); }
static void make_word(void) { *word = 0; }
static void make_child(void) { if (!(waited = fork())) for (;;) pause(); }
static void make_fifo(void) { unlink(path), mkfifo(path, 0600); }

static long do_read(void) { return read(fds[0], buffer, 1); }
static long do_write(void) { return write(fds[1], buffer, 4096) > 0; }
static long do_recv(void) { return recv(fds[0], buffer, 1, 0); }
static long do_recvmsg(void) {
    struct iovec v = {buffer, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    return recvmsg(fds[0], &m, 0);
}
static long do_accept(void) { return accept(fds[0], 0, 0) >= 0; }
static long do_flock(void) { return flock(fds[0], LOCK_EX); }
static long do_setlkw(void) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fds[0], F_SETLKW, &l);
}
static long do_wait4(void) { return waitpid(waited, 0, 0) > 0; }
static long do_waitid(void) { siginfo_t i; return waitid(P_PID, waited, &i, WEXITED); }
static long do_open(void) { return (fds[0] = open(path, O_RDONLY)) >= 0; }
static long do_poll(void) { struct pollfd p = {fds[0], POLLIN}; return poll(&p, 1, 20000); }
static long do_ppoll(void) { struct pollfd p = {fds[0], POLLIN}; return ppoll(&p, 1, 0, 0); }
static long do_select(void) {
    fd_set s;
    FD_ZERO(&s);
    FD_SET(fds[0], &s);
    return select(fds[0] + 1, &s, 0, 0, 0);
}
static long do_pselect(void) {
    fd_set s;
    struct timespec t = {20, 0};
    FD_ZERO(&s);
    FD_SET(fds[0], &s);
    return pselect(fds[0] + 1, &s, 0, 0, &t, 0);
}
static long do_epoll(void) { struct epoll_event e; return epoll_wait(other, &e, 1, -1); }
static long do_msgrcv(void) { return msgrcv(queue, buffer, 10, 0, 0); }
static long do_msgsnd(void) { struct { long t; char x[4096]; } m = {1}; return msgsnd(queue, &m, sizeof m.x, 0); }
static long do_semop(void) { struct sembuf b = {0, -1}; return semop(set_id, &b, 1); }
static long do_semtimedop(void) {
    struct sembuf b = {0, -1};
    struct timespec t = {20, 0};
    return semtimedop(set_id, &b, 1, &t);
}
static long do_futex(void) { return syscall(SYS_futex, word, FUTEX_WAIT, 0, 0, 0, 0); }
static long do_futex_timed(void) {
    struct timespec t = {20, 0};
    return syscall(SYS_futex, word, FUTEX_WAIT, 0, &t, 0, 0);
}
static long do_nanosleep(void) {
    struct timespec t = {0, 900000000}, rest = {0};
    int r = nanosleep(&t, &rest);
    if (r) r -= !(rest.tv_sec == 0 && rest.tv_nsec > 0); // -2: nothing sensible left
    return r;
}
static long do_clock_nanosleep(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += 1;
    errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
    return errno ? -1 : 0;
}
static long do_pause(void) { return pause(); }
static long do_sigsuspend(void) { sigset_t s; sigemptyset(&s); return sigsuspend(&s); }
static long do_sigwaitinfo(void) { sigset_t s; sigemptyset(&s), sigaddset(&s, SIGUSR2); return sigwaitinfo(&s, 0); }
static long do_sigtimedwait(void) {
    sigset_t s;
    struct timespec t = {20, 0};
    sigemptyset(&s), sigaddset(&s, SIGUSR2);
    return sigtimedwait(&s, 0, &t);
}

static void put_byte(void) { if (write(fds[1], "x", 1) < 0) abort(); }
static void drain(void) { if (read(fds[0], buffer, sizeof buffer) < 0) abort(); }
static void connect_it(void) {
    struct sockaddr_un a = name();
    if (connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, sizeof a)) abort();
    pause();
}
static void kill_waited(void) { kill(waited, SIGKILL); }
static void open_fifo(void) { open(path, O_WRONLY); pause(); }
static void create(void) { char p[250]; snprintf(p, sizeof p, "%s/%d", folder, getpid()); close(open(p, O_CREAT | O_WRONLY, 0600)); unlink(p); }
static void put_event(void) { unsigned long long one = 1; if (write(fds[0], &one, 8) < 0) abort(); }
static void set_timer(void) { struct itimerspec t = {{0, 0}, {0, 1}}; timerfd_settime(fds[0], 0, &t, 0); }
static void usr2(void) { kill(getppid(), SIGUSR2); }
static void send_message(void) { struct { long t; char x; } m = {1}; msgsnd(queue, &m, 1, 0); }
static void take_message(void) { msgrcv(queue, buffer, 4096, 0, 0); }
static void raise_sem(void) { struct sembuf b = {0, 1}; semop(set_id, &b, 1); }
static void wake(void) { *word = 1; syscall(SYS_futex, word, FUTEX_WAKE, 1, 0, 0, 0); }
// The child holds the lock from its start on; its end releases it.
static void hold_flock(void) { flock(open(path, O_RDWR), LOCK_EX); }
static void hold_lock(void) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    fcntl(open(path, O_RDWR), F_SETLKW, &l);
}

static const struct test {
    const char *name;
    void (*make)(void);
    long (*call)(void);
    void (*release)(void);
    void (*before)(void); // what the child does first
} tests[] = {
    {"read of a pipe", make_pipe, do_read, put_byte},
    {"write to a pipe", make_full_pipe, do_write, drain},
    {"read of an eventfd", make_eventfd, (long (*)(void))0, put_event},
    {"read of a timerfd", make_timerfd, (long (*)(void))0, set_timer},
    {"read of an inotify", make_inotify, (long (*)(void))0, create},
    {"read of a signalfd", make_signalfd, (long (*)(void))0, usr2},
    {"recv", make_pair, do_recv, put_byte},
    {"recvmsg", make_pair, do_recvmsg, put_byte},
    {"recv with timeout", make_timed_pair, do_recv, put_byte},
    {"accept", make_listener, do_accept, connect_it},
    {"flock", make_lock, do_flock, nothing, hold_flock},
    {"F_SETLKW", make_lock, do_setlkw, nothing, hold_lock},
    {"wait4", make_child, do_wait4, kill_waited},
    {"waitid", make_child, do_waitid, kill_waited},
    {"open of a fifo", make_fifo, do_open, open_fifo},
    {"futex", make_word, do_futex, wake},
    {"futex with timeout", make_word, do_futex_timed, wake},
    {"msgrcv", make_queue, do_msgrcv, send_message},
    {"msgsnd", make_full_queue, do_msgsnd, take_message},
    {"semop", make_sem, do_semop, raise_sem},
    {"semtimedop", make_sem, do_semtimedop, raise_sem},
    {"poll", make_pipe, do_poll, put_byte},
    {"ppoll", make_pipe, do_ppoll, put_byte},
    {"select", make_pipe, do_select, put_byte},
    {"pselect", make_pipe, do_pselect, put_byte},
    {"epoll_wait", make_epoll, do_epoll, put_byte},
    {"nanosleep", nothing, do_nanosleep, nothing},
    {"clock_nanosleep", nothing, do_clock_nanosleep, nothing},
    {"pause", nothing, do_pause, usr2},
    {"sigsuspend", nothing, do_sigsuspend, usr2},
    {"sigwaitinfo", nothing, do_sigwaitinfo, usr2},
    {"sigtimedwait", nothing, do_sigtimedwait, usr2},
};
static long do_read8(void) { return read(fds[0], buffer, 512) > 0; }

// The state letter of a process: S when it sleeps, T when it is stopped.
static char state_of(pid_t pid) {
    char p[64], text[512] = "";
    snprintf(p, sizeof p, "/proc/%d/stat", pid);
    FILE *f = fopen(p, "r");
    if (!f) return '?';
    fgets(text, sizeof text, f);
    fclose(f);
    char *end = strrchr(text, ')');
    return end ? end[2] : '?';
}
static void await(char state) {
    for (int seen = 0, tries = 0; seen < 4 && tries < 3000; tries++) {
        seen = state_of(getppid()) == state ? seen + 1 : 0;
        usleep(3000);
    }
}

enum mode { RESTARTS, ENDS, STOPS };

static void run(const struct test *t, enum mode mode) {
    int ready[2];
    char byte;
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = mode == RESTARTS ? SA_RESTART : 0};
    sigaction(SIGUSR1, &act, 0);
    // SIGUSR2 is what some wait for: blocked, or a handler that always ends the wait.
    int pauses = t->call == do_pause || t->call == do_sigsuspend;
    sigset_t s;
    sigemptyset(&s), sigaddset(&s, SIGUSR2);
    sigprocmask(pauses ? SIG_UNBLOCK : SIG_BLOCK, &s, 0);
    sigaction(SIGUSR2, &act, 0);
    handled = 0;
    fds[0] = fds[1] = other = queue = set_id = -1;
    t->make();
    if (pipe(ready)) abort();
    pid_t child = fork();
    if (!child) {
        signal(SIGPIPE, SIG_IGN);
        if (t->before) t->before();
        if (write(ready[1], "r", 1) != 1) abort();
        await('S');
        if (mode == STOPS) {
            kill(getppid(), SIGSTOP), await('T');
            kill(getppid(), SIGCONT);
        } else {
            kill(getppid(), SIGUSR1);
        }
        await('S');
        t->release();
        _exit(0);
    }
    if (read(ready[0], &byte, 1) != 1) abort();
    long r = (t->call ? t->call : do_read8)();
    int e = errno;
    kill(child, SIGKILL), waitpid(child, 0, 0);
    if (waited > 0 && t->make == make_child) kill(waited, SIGKILL), waitpid(waited, 0, 0);
    struct timespec none = {0, 0};
    while (sigtimedwait(&s, 0, &none) > 0);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        if (fds[i] >= 0) close(fds[i]);
    }
    if (other >= 0) close(other);
    if (queue >= 0) msgctl(queue, IPC_RMID, 0);
    if (set_id >= 0) semctl(set_id, 0, IPC_RMID);
    static const char *modes[] = {"SA_RESTART", "no SA_RESTART", "stopped"};
    printf("%s, %s: %ld %s, handled %d\n", t->name, modes[mode], r, r < 0 ? strerror(e) : "", handled != 0);
}

// A signal that comes before a call that need not sleep does not end it.
static void run_quick(void) {
    struct sigaction act = {.sa_handler = on_signal};
    struct itimerval fast = {{0, 200}, {0, 200}}, off = {{0, 0}, {0, 0}};
    int ended = 0;
    handled = 0;
    sigaction(SIGALRM, &act, 0);
    make_pipe();
    setitimer(ITIMER_REAL, &fast, 0);
    for (int i = 0; i < 20000; i++) {
        ended += write(fds[1], "x", 1) != 1;
        ended += read(fds[0], buffer, 1) != 1;
    }
    setitimer(ITIMER_REAL, &off, 0);
    printf("calls that need not sleep: %d ended, handled %d\n", ended, handled != 0);
}

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IOLBF, 0);
    word = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/file", folder);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        for (enum mode m = RESTARTS; m <= STOPS; m++)
            if (argc < 2 || strstr(tests[i].name, argv[1])) run(&tests[i], m);
    run_quick();
    char p[250];
    snprintf(p, sizeof p, "rm -r %s", folder);
    return system(p) != 0;
}
