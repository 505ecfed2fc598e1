#include "check.h"
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <time.h>

static char buf[4096];

static void clocks(void) {
    struct timespec a, b, r;
    T(clock_gettime(CLOCK_MONOTONIC, &a));
    T(clock_getres(CLOCK_MONOTONIC, &r));
    T(r.tv_nsec);
    struct timespec ms = {0, 20000000};
    T(nanosleep(&ms, 0));
    T(clock_gettime(CLOCK_MONOTONIC, &b));
    OK((b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec >= 20000000);
    b.tv_nsec += 10000000;
    if (b.tv_nsec >= 1000000000)
        b.tv_sec++, b.tv_nsec -= 1000000000;
    T(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &b, 0));
    ms.tv_nsec = 2000000000;
    T(nanosleep(&ms, 0));
    struct timeval tv;
    T(syscall(SYS_gettimeofday, &tv, 0));
    OK(labs(tv.tv_sec - time(0)) <= 1);
    for (int clock = 0; clock < 12; clock++)
        T(syscall(SYS_clock_gettime, clock, &a));
    int t = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec it = {{0, 5000000}, {0, 5000000}}, old;
    uint64_t n = 0;
    T(read(t, &n, 8));
    T(timerfd_settime(t, 0, &it, &old));
    T(old.it_value.tv_nsec);
    usleep(22000);
    T(read(t, &n, 8));
    OK(n >= 4);
    T(timerfd_gettime(t, &old));
    T(old.it_interval.tv_nsec);
    close(t);
    struct itimerval iv = {{0, 0}, {1000, 0}}, ov;
    T(setitimer(ITIMER_REAL, &iv, 0));
    T(getitimer(ITIMER_REAL, &ov));
    OK(ov.it_value.tv_sec == 999 || ov.it_value.tv_sec == 1000);
    iv.it_value.tv_sec = 0;
    T(setitimer(ITIMER_REAL, &iv, &ov));
    struct sigevent se = {.sigev_notify = SIGEV_NONE};
    timer_t id;
    T(timer_create(CLOCK_MONOTONIC, &se, &id));
    it = (struct itimerspec){{0, 0}, {100, 0}};
    T(timer_settime(id, 0, &it, 0));
    T(timer_gettime(id, &old));
    T(old.it_value.tv_sec);
    T(timer_delete(id));
    struct tms tms;
    OK(times(&tms) != -1);
    struct rusage ru;
    T(getrusage(RUSAGE_SELF, &ru));
    OK(ru.ru_maxrss > 100);
    T(getrusage(55, &ru));
}

static void limits(void) {
    struct rlimit l, m;
    T(getrlimit(RLIMIT_NOFILE, &l));
    m = l;
    m.rlim_cur = 200;
    T(setrlimit(RLIMIT_NOFILE, &m));
    T(getrlimit(RLIMIT_NOFILE, &m));
    T(m.rlim_cur);
    T(fcntl(0, F_DUPFD, 200));
    T(setrlimit(RLIMIT_NOFILE, &l));
    T(getrlimit(RLIMIT_AS, &l));
    m = (struct rlimit){1 << 30, l.rlim_max};
    T(setrlimit(RLIMIT_AS, &m));
    T(getrlimit(RLIMIT_AS, &m));
    T(m.rlim_cur);
    T(setrlimit(RLIMIT_AS, &l));
    T(getrlimit(1000, &m));
    m = (struct rlimit){2, 1};
    T(setrlimit(RLIMIT_CORE, &m));
}

static void identity(void) {
    uid_t r, e, s;
    T(getresuid(&r, &e, &s));
    OK(r == getuid() && e == geteuid());
    gid_t g[100];
    int n = getgroups(100, g);
    OK(n >= 0);
    T(getgroups(0, 0) == n);
    T(getpgid(0) == getpgrp());
    OK(getsid(0) > 0);
    struct utsname u;
    T(uname(&u));
    printf("%s %s\n", u.sysname, u.nodename);
    struct sysinfo si;
    T(sysinfo(&si));
    OK(si.totalram > 1000000 && si.mem_unit == 1 && si.procs > 0);
    T(prctl(PR_SET_NAME, "a long name that is cut", 0, 0, 0));
    T(prctl(PR_GET_NAME, buf, 0, 0, 0));
    printf("%s\n", buf);
    T(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
    T(prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0));
    int v = 7;
    T(prctl(PR_GET_CHILD_SUBREAPER, &v, 0, 0, 0));
    T(v);
    T(prctl(PR_GET_SECCOMP, 0, 0, 0, 0));
    T(prctl(99999, 0, 0, 0, 0));
    cpu_set_t set;
    CPU_ZERO(&set);
    T(sched_getaffinity(0, sizeof set, &set));
    OK(CPU_COUNT(&set) >= 1);
    T(sched_setaffinity(0, sizeof set, &set));
    T(sched_getscheduler(0));
    struct sched_param sp;
    T(sched_getparam(0, &sp));
    T(sp.sched_priority);
    T(sched_get_priority_max(SCHED_FIFO));
    unsigned cpu, node;
    T(syscall(SYS_getcpu, &cpu, &node, 0));
    T(syscall(SYS_getrandom, buf, 16, 0));
    T(getauxval(AT_PAGESZ));
    T(getauxval(AT_CLKTCK));
    OK(strstr((char *)getauxval(AT_EXECFN), "system"));
    T(getauxval(AT_UID) == getuid());
    OK(getauxval(AT_RANDOM) != 0);
    T(sysconf(_SC_PAGESIZE));
    T(getpriority(PRIO_PROCESS, 0));
    T(syscall(SYS_io_uring_setup, 0, 0) < 0);
    T(syscall(9999, 1, 2, 3));
    T(syscall(-1));
}

static void ipc(void) {
    int id = semget(IPC_PRIVATE, 3, IPC_CREAT | 0640);
    OK(id >= 0);
    unsigned short vals[3] = {1, 2, 3};
    T(semctl(id, 0, SETALL, vals));
    struct sembuf ops[2] = {{0, -1, 0}, {2, 4, 0}};
    T(semop(id, ops, 2));
    T(semctl(id, 2, GETVAL));
    T(semctl(id, 1, SETVAL, 9));
    T(semctl(id, 0, GETALL, vals));
    T(vals[0] * 100 + vals[1] * 10 + vals[2]);
    ops[0].sem_flg = IPC_NOWAIT;
    T(semop(id, ops, 1));
    struct timespec ts = {0, 10000000};
    ops[0].sem_flg = 0;
    T(semtimedop(id, ops, 1, &ts));
    struct semid_ds sd;
    T(semctl(id, 0, IPC_STAT, &sd));
    T(sd.sem_nsems);
    T(sd.sem_perm.mode);
    T(semctl(id, 0, IPC_RMID));
    int q = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    struct {
        long type;
        char text[20];
    } m = {5, "message"};
    T(msgsnd(q, &m, 8, 0));
    T(msgrcv(q, &m, 20, 4, IPC_NOWAIT));
    struct msqid_ds md;
    T(msgctl(q, IPC_STAT, &md));
    T(md.msg_qnum);
    T(md.msg_cbytes);
    memset(&m, 0, sizeof m);
    T(msgrcv(q, &m, 20, 0, 0));
    printf("%ld %s\n", m.type, m.text);
    T(msgctl(q, IPC_RMID, 0));
    sprintf(buf, "/tulk-test-%d", getpid());
    struct mq_attr at = {0, 4, 64};
    mqd_t mq = mq_open(buf, O_RDWR | O_CREAT | O_NONBLOCK, 0600, &at);
    if (mq != (mqd_t)-1) {
        T(mq_getattr(mq, &at));
        T(at.mq_maxmsg * 1000 + at.mq_msgsize);
        T((at.mq_flags & O_NONBLOCK) != 0);
        T(mq_send(mq, "prio", 4, 3));
        unsigned prio = 0;
        char text[64];
        T(mq_receive(mq, text, 64, &prio));
        T(prio);
        T(mq_receive(mq, text, 64, &prio));
        T(mq_close(mq));
        T(mq_unlink(buf));
    }
}

int main(void) {
    clocks();
    limits();
    identity();
    ipc();
}
