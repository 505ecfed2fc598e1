// Actions, masks, alternate stacks and queues of signals in their odd corners (sigaction(2), sigaltstack(2),
// signal(7), execve(2), fork(2)).
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif
#define STACK 65536

static char log_text[4096];
static void note(const char *what, int n) {
    char t[64];
    snprintf(t, sizeof t, " %s%d", what, n);
    strcat(log_text, t);
}
static void show(const char *title) {
    printf("%s:%s\n", title, log_text);
    log_text[0] = 0;
}
static sigset_t set_of(int a, int b) {
    sigset_t s;
    sigemptyset(&s);
    if (a) sigaddset(&s, a);
    if (b) sigaddset(&s, b);
    return s;
}
static void catch(int sig, void *handler, int flags, sigset_t mask) {
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO, .sa_mask = mask};
    sigaction(sig, &act, 0);
}
static void show_mask(const char *title) {
    sigset_t now, waiting;
    sigprocmask(SIG_BLOCK, 0, &now);
    sigpending(&waiting);
    for (int s = 1; s < 64; s++) {
        if (sigismember(&now, s) == 1) note("blocked ", s);
        if (sigismember(&waiting, s) == 1) note("pending ", s);
    }
    show(title);
}

static int depth;
static void nested(int sig, siginfo_t *i, void *c) {
    note("in ", sig);
    if (++depth < 3) raise(sig);
    note("out ", sig);
}
static void flags_of_actions(void) {
    depth = 0;
    catch(SIGUSR1, nested, 0, set_of(0, 0));
    raise(SIGUSR1), show("plain handler raises itself");
    depth = 0;
    catch(SIGUSR1, nested, SA_NODEFER, set_of(0, 0));
    raise(SIGUSR1), show("SA_NODEFER");
    depth = 5;
    catch(SIGUSR1, nested, SA_RESETHAND, set_of(SIGUSR2, 0));
    raise(SIGUSR1);
    struct sigaction old;
    sigaction(SIGUSR1, 0, &old);
    note("default ", old.sa_handler == SIG_DFL);
    note("flags ", old.sa_flags == (int)(SA_RESETHAND | SA_SIGINFO) || (old.sa_flags & SA_RESETHAND) != 0);
    note("mask ", sigismember(&old.sa_mask, SIGUSR2));
    show("SA_RESETHAND");
    errno = 0;
    struct sigaction bad = {.sa_handler = SIG_IGN};
    note("kill ", sigaction(SIGKILL, &bad, 0)), note("errno ", errno == EINVAL);
    note("stop ", sigaction(SIGSTOP, &bad, 0)), note("errno ", errno == EINVAL);
    note("read kill ", sigaction(SIGKILL, 0, &old));
    show("what cannot be caught");
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, 0);
    sigprocmask(SIG_SETMASK, 0, &all);
    note("kill ", sigismember(&all, SIGKILL)), note("stop ", sigismember(&all, SIGSTOP));
    note("segv ", sigismember(&all, SIGSEGV));
    show("everything blocked");
    all = set_of(0, 0);
    sigprocmask(SIG_SETMASK, &all, 0);
}

static void order(int sig, siginfo_t *i, void *c) {
    note("", sig - SIGRTMIN);
    note("=", i->si_value.sival_int);
    note("code ", i->si_code);
}
static void queues(void) {
    sigset_t rt = set_of(0, 0), old;
    for (int n = 0; n < 3; n++) {
        catch(SIGRTMIN + n, order, 0, set_of(0, 0));
        sigaddset(&rt, SIGRTMIN + n);
    }
    for (int n = 0; n < 3; n++) catch(SIGRTMIN + n, order, 0, rt);
    sigprocmask(SIG_BLOCK, &rt, &old);
    for (int k = 0; k < 2; k++)
        for (int n = 2; n >= 0; n--) sigqueue(getpid(), SIGRTMIN + n, (union sigval){.sival_int = 10 * n + k});
    siginfo_t i = {.si_code = SI_QUEUE};
    i.si_pid = getpid(), i.si_value.sival_int = 77;
    note("tg ", syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGRTMIN + 1, &i));
    i.si_code = SI_TKILL;
    note("forged ", syscall(SYS_rt_sigqueueinfo, getppid(), SIGRTMIN + 1, &i) == -1 && errno == EPERM);
    sigprocmask(SIG_SETMASK, &old, 0);
    show("queue");
    struct rlimit none = {0, 0}, limit;
    getrlimit(RLIMIT_SIGPENDING, &limit);
    none.rlim_max = limit.rlim_max;
    setrlimit(RLIMIT_SIGPENDING, &none);
    sigprocmask(SIG_BLOCK, &rt, 0);
    note("full ", sigqueue(getpid(), SIGRTMIN, (union sigval){0}) == -1 && errno == EAGAIN);
    setrlimit(RLIMIT_SIGPENDING, &limit);
    sigprocmask(SIG_SETMASK, &old, 0);
    show("queue limit");
}

static void where(int sig, siginfo_t *i, void *c) {
    char here;
    stack_t now;
    ucontext_t *u = c;
    sigaltstack(0, &now);
    note("on it ", (uintptr_t)&here - (uintptr_t)u->uc_stack.ss_sp < STACK);
    note("frame flags ", u->uc_stack.ss_flags & 0xff), note("size ", u->uc_stack.ss_size);
    note("now ", now.ss_flags & 0xff), note("size ", now.ss_size);
    note("autodisarm ", (now.ss_flags & SS_AUTODISARM) != 0);
    if (sig == SIGUSR1) raise(SIGUSR2);
    stack_t none = {.ss_flags = SS_DISABLE};
    note("change ", sigaltstack(&none, 0));
}
static void plain(int sig) { note("plain ", sig); }
static void no_room(int sig, siginfo_t *i, void *c) { note("no room ", i->si_code); }
static void alternate_stacks(void) {
    static char room[2][STACK] __attribute__((aligned(4096)));
    stack_t s = {.ss_sp = room[0], .ss_size = STACK}, now;
    for (int on = 0; on < 2; on++)
        for (int disarm = 0; disarm < 2; disarm++) {
            s.ss_flags = disarm ? SS_AUTODISARM : 0;
            note("set ", sigaltstack(&s, 0));
            catch(SIGUSR1, where, on ? SA_ONSTACK : 0, set_of(0, 0));
            catch(SIGUSR2, where, SA_ONSTACK, set_of(0, 0));
            raise(SIGUSR1);
            sigaltstack(0, &now);
            note("after ", now.ss_flags & 0xff), note("size ", now.ss_size), note("first ", now.ss_sp == room[0]);
            note("autodisarm ", (now.ss_flags & SS_AUTODISARM) != 0);
            show("alternate stack");
        }
    stack_t small = {.ss_sp = room[1], .ss_size = 100}, bad = {.ss_sp = room[1], .ss_size = STACK, .ss_flags = 4};
    note("small ", sigaltstack(&small, 0) == -1 && errno == ENOMEM);
    note("bad ", sigaltstack(&bad, 0) == -1 && errno == EINVAL);
    note("kept ", !sigaltstack(0, &now) && now.ss_sp == room[0]);
    s.ss_flags = 0, sigaltstack(&s, 0);
    signal(SIGUSR1, plain), raise(SIGUSR1); // i386's old frame does not hold the stack
    note("kept ", !sigaltstack(0, &now) && now.ss_sp == room[0] && now.ss_size == STACK);
    if (!fork()) {
        sigaltstack(0, &now);
        printf("child keeps it: %d\n", now.ss_sp == room[0]);
        _exit(0);
    }
    wait(0);
    stack_t away = {.ss_sp = mmap(0, STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .ss_size = STACK};
    sigaltstack(&away, 0);
    catch(SIGSEGV, no_room, 0, set_of(0, 0)), catch(SIGUSR1, where, SA_ONSTACK, set_of(0, 0)), raise(SIGUSR1);
    signal(SIGSEGV, SIG_DFL), munmap(away.ss_sp, STACK);
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, 0);
    show("alternate stack errors");
}

// The mask of a wait holds while the handlers of all that it let through are entered.
static void wait_handler(int sig, siginfo_t *i, void *c) {
    sigset_t now;
    ucontext_t *u = c;
    sigprocmask(SIG_BLOCK, 0, &now);
    note("", sig), note("1:", sigismember(&now, SIGUSR1)), note("2:", sigismember(&now, SIGUSR2));
    note("then 1:", sigismember(&u->uc_sigmask, SIGUSR1)), note("2:", sigismember(&u->uc_sigmask, SIGUSR2));
}
static void waits(void) {
    sigset_t both = set_of(SIGUSR1, SIGUSR2), none = set_of(0, 0), old;
    catch(SIGUSR1, wait_handler, 0, none);
    catch(SIGUSR2, wait_handler, SA_RESTART, none);
    sigprocmask(SIG_BLOCK, &both, &old);
    struct timespec t = {20, 0};
    int e = epoll_create1(0);
    struct epoll_event event;
    for (int way = 0; way < 5; way++) {
        raise(SIGUSR1), raise(SIGUSR2);
        int r = 0;
        errno = 0;
        if (way == 0) r = sigsuspend(&none);
        if (way == 1) r = ppoll(0, 0, &t, &none);
        if (way == 2) r = pselect(0, 0, 0, 0, &t, &none);
        if (way == 3) r = epoll_pwait(e, &event, 1, -1, &none);
        if (way == 4) r = poll(0, 0, 1);
        note("returned ", r), note("EINTR ", errno == EINTR);
        show_mask("wait with a mask");
        if (way == 4) sigprocmask(SIG_SETMASK, &old, 0), show("unblocked");
    }
    close(e);
}

static void child_info(int sig, siginfo_t *i, void *c) {
    note("code ", i->si_code), note("status ", i->si_status), note("pid ", i->si_pid > 1);
}
static void children(void) {
    sigset_t chld = set_of(SIGCHLD, 0);
    siginfo_t i;
    int status;
    sigprocmask(SIG_BLOCK, &chld, 0);
    catch(SIGCHLD, child_info, 0, set_of(0, 0));
    sigset_t go = set_of(SIGUSR2, 0);
    sigprocmask(SIG_BLOCK, &go, 0);
    pid_t pid = fork();
    if (!pid) raise(SIGSTOP), sigwaitinfo(&go, 0), _exit(3);
    note("wait ", sigwaitinfo(&chld, &i)), child_info(SIGCHLD, &i, 0);
    waitid(P_PID, pid, &i, WSTOPPED), child_info(SIGCHLD, &i, 0);
    kill(pid, SIGCONT);
    waitid(P_PID, pid, &i, WCONTINUED), child_info(SIGCHLD, &i, 0);
    kill(pid, SIGUSR2), sigprocmask(SIG_UNBLOCK, &go, 0);
    waitid(P_PID, pid, &i, WEXITED | WNOWAIT), child_info(SIGCHLD, &i, 0);
    note("again ", waitpid(pid, &status, 0) == pid), note("exit ", WEXITSTATUS(status));
    struct timespec none = {0, 0};
    while (sigtimedwait(&chld, 0, &none) > 0);
    show("stop and continue");
    sigprocmask(SIG_UNBLOCK, &chld, 0);
    if (!(pid = fork())) raise(SIGKILL);
    while (waitpid(pid, &status, 0) < 0);
    show("killed");
    catch(SIGCHLD, child_info, SA_NOCLDSTOP, set_of(0, 0));
    if (!(pid = fork())) raise(SIGSTOP), _exit(4);
    waitpid(pid, &status, WUNTRACED), note("stopped ", WIFSTOPPED(status));
    kill(pid, SIGCONT);
    while (waitpid(pid, &status, 0) < 0);
    show("SA_NOCLDSTOP");
    catch(SIGCHLD, child_info, SA_NOCLDWAIT | SA_RESTART, set_of(0, 0));
    if (!(pid = fork())) _exit(5);
    note("waited ", waitpid(pid, &status, 0) == -1 && errno == ECHILD);
    show("SA_NOCLDWAIT");
    signal(SIGCHLD, SIG_IGN);
    if (!(pid = fork())) _exit(6);
    note("waited ", waitpid(pid, &status, 0) == -1 && errno == ECHILD);
    show("SIGCHLD ignored");
    signal(SIGCHLD, SIG_DFL);
    // A stop signal that is caught, then given its default action by the handler's end.
    if (!(pid = fork())) {
        signal(SIGTSTP, SIG_IGN), raise(SIGTSTP);
        signal(SIGTSTP, SIG_DFL), raise(SIGTSTP);
        _exit(7);
    }
    waitpid(pid, &status, WUNTRACED), note("stopped by ", WIFSTOPPED(status) ? WSTOPSIG(status) : -1);
    kill(pid, SIGCONT), waitpid(pid, &status, 0), note("exit ", WEXITSTATUS(status));
    show("SIGTSTP");
}

// A fault that somebody sends is a signal like others: it can be blocked, waits, and is seen.
static void sent(int sig, siginfo_t *i, void *c) { note("sent ", sig), note("code ", i->si_code == SI_USER || i->si_code == SI_TKILL); }
static void sent_faults(void) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (int k = 0; k < 5; k++) {
        sigset_t s = set_of(faults[k], 0), waiting;
        struct timespec none = {0, 0};
        catch(faults[k], sent, 0, set_of(0, 0));
        raise(faults[k]);
        sigprocmask(SIG_BLOCK, &s, 0);
        raise(faults[k]), raise(faults[k]);
        sigpending(&waiting), note("pending ", sigismember(&waiting, faults[k]));
        note("taken ", sigtimedwait(&s, 0, &none) == faults[k]);
        note("empty ", sigtimedwait(&s, 0, &none) == -1 && errno == EAGAIN);
        raise(faults[k]);
        sigprocmask(SIG_UNBLOCK, &s, 0);
        signal(faults[k], SIG_IGN), raise(faults[k]), signal(faults[k], SIG_DFL);
        show("sent fault");
    }
}

// Masks, pending and ignored signals over fork and exec; argv[1] says who we are then.
static void inheritance(const char *self) {
    sigset_t s = set_of(SIGUSR1, SIGSEGV);
    int status;
    sigprocmask(SIG_SETMASK, &s, 0);
    signal(SIGUSR1, SIG_DFL), signal(SIGSEGV, SIG_DFL);
    raise(SIGUSR1);
    fflush(stdout);
    if (!fork()) show_mask("forked"), _exit(0);
    wait(0);
    fflush(stdout);
    if (!fork()) {
        raise(SIGUSR1), raise(SIGSEGV);
        signal(SIGHUP, SIG_IGN), signal(SIGBUS, SIG_IGN), signal(SIGPIPE, SIG_IGN), signal(SIGRTMAX, SIG_IGN);
        catch(SIGUSR2, sent, 0, s), catch(SIGFPE, sent, 0, s);
        execl("/nonexistent", "x", (char *)0);
        execl(self, self, "exec", (char *)0);
        _exit(9);
    }
    wait(&status);
    printf("exec: exit %d\n", WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
    show_mask("parent");
    struct timespec none = {0, 0};
    sigtimedwait(&s, 0, &none);
    sigprocmask(SIG_UNBLOCK, &s, 0);
}
static void after_exec(void) {
    for (int sig = 1; sig < 65; sig++) {
        struct sigaction act;
        if (sigaction(sig, 0, &act)) continue;
        if (act.sa_handler == SIG_IGN) note("ignored ", sig);
        else if (act.sa_handler != SIG_DFL) note("caught ", sig);
    }
    show("after exec");
    show_mask("after exec");
    sigset_t s = set_of(SIGUSR1, 0);
    struct timespec none = {0, 0};
    note("taken ", sigtimedwait(&s, 0, &none) == SIGUSR1), show("after exec");
    fflush(stdout);
    s = set_of(SIGSEGV, 0), sigprocmask(SIG_UNBLOCK, &s, 0);
    _exit(1);
}

// To the process or to one thread of it.
static volatile int stop;
static pthread_t helper;
static void who(int sig, siginfo_t *i, void *c) { note("helper ", pthread_equal(pthread_self(), helper)), note("", sig); }
static void *helps(void *unused) {
    sigset_t s = set_of(SIGUSR1, 0);
    pthread_sigmask(SIG_UNBLOCK, &s, 0);
    while (!stop) usleep(1000);
    return 0;
}
static void threads(void) {
    sigset_t both = set_of(SIGUSR1, SIGUSR2), waiting;
    catch(SIGUSR1, who, 0, set_of(0, 0)), catch(SIGUSR2, who, 0, set_of(0, 0));
    sigprocmask(SIG_BLOCK, &both, 0);
    pthread_create(&helper, 0, helps, 0);
    kill(getpid(), SIGUSR1); // only the helper lets it through
    while (!strstr(log_text, " 10")) usleep(1000);
    show("for whoever lets it through");
    pthread_kill(helper, SIGUSR2);
    sigpending(&waiting), note("pending here ", sigismember(&waiting, SIGUSR2));
    kill(getpid(), SIGUSR2), sigpending(&waiting), note("for the process ", sigismember(&waiting, SIGUSR2));
    sigprocmask(SIG_UNBLOCK, &both, 0);
    stop = 1, pthread_join(helper, 0);
    show("for one thread");
    note("gone ", syscall(SYS_tgkill, getpid(), 0x3ffffff, 0) == -1 && errno == ESRCH);
    note("bad ", syscall(SYS_tgkill, -1, getpid(), 0) == -1 && errno == EINVAL);
    note("bad ", syscall(SYS_tgkill, getpid(), getpid(), 65) == -1 && errno == EINVAL);
    show("tgkill");
}

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IOLBF, 0);
    if (argc > 1) after_exec();
    flags_of_actions();
    queues();
    alternate_stacks();
    waits();
    children();
    sent_faults();
    inheritance("/proc/self/exe");
    threads();
}
