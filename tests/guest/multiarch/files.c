// Files, directories, descriptors, polling, sockets, timers and clocks.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what) printf("%s: %s\n", #what, (what) ? "yes" : "NO")

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int main(void) {
    char dir[] = "/tmp/tulk-files-XXXXXX";
    CHECK(mkdtemp(dir) != 0);
    CHECK(chdir(dir) == 0);
    int fd = open("a", O_RDWR | O_CREAT | O_EXCL, 0640);
    CHECK(fd >= 0);
    CHECK(open("a", O_CREAT | O_EXCL, 0600) == -1 && errno == EEXIST);
    CHECK(write(fd, "hello, world", 12) == 12);
    struct iovec iov[2] = {{"one", 3}, {"two", 3}};
    CHECK(pwritev(fd, iov, 2, 100) == 6);
    struct stat st;
    CHECK(fstat(fd, &st) == 0 && st.st_size == 106 && (st.st_mode & 07777) == 0640);
    CHECK(lseek(fd, 0, SEEK_DATA) == 0);
    char buffer[256] = {0};
    CHECK(pread(fd, buffer, 12, 0) == 12 && !strcmp(buffer, "hello, world"));
    CHECK(symlink("a", "link") == 0 && readlink("link", buffer, sizeof buffer) == 1);
    CHECK(link("a", "hard") == 0 && stat("hard", &st) == 0 && st.st_nlink == 2);
    CHECK(mkdir("d", 0755) == 0 && rename("hard", "d/moved") == 0);
    CHECK(truncate("a", 5) == 0 && stat("link", &st) == 0 && st.st_size == 5);
    struct timespec times[2] = {{1000, 5}, {2000, 7}};
    CHECK(utimensat(AT_FDCWD, "a", times, 0) == 0 && stat("a", &st) == 0 && st.st_mtim.tv_sec == 2000 && st.st_mtim.tv_nsec == 7);
    struct statx sx;
    CHECK(statx(AT_FDCWD, "a", 0, STATX_ALL, &sx) == 0 && sx.stx_size == 5);
    CHECK(access("a", R_OK) == 0 && access("none", F_OK) == -1 && errno == ENOENT);
    CHECK(flock(fd, LOCK_EX) == 0);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 4};
    CHECK(fcntl(fd, F_SETLK, &lock) == 0);
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, "file%02d", i);
        close(open(name, O_CREAT | O_WRONLY, 0600));
    }
    DIR *d = opendir(".");
    char *names[64];
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) names[n++] = strdup(e->d_name);
    closedir(d);
    qsort(names, n, sizeof *names, by_name);
    printf("%d entries, first %s last %s\n", n, names[0], names[n - 1]);

    int p[2];
    CHECK(pipe(p) == 0);
    struct pollfd pf = {p[0], POLLIN, 0};
    CHECK(poll(&pf, 1, 0) == 0);
    CHECK(write(p[1], "x", 1) == 1 && poll(&pf, 1, 1000) == 1 && pf.revents == POLLIN);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(p[0], &set);
    struct timeval tv = {1, 0};
    CHECK(select(p[0] + 1, &set, 0, 0, &tv) == 1);
    int ep = epoll_create1(0);
    struct epoll_event ev = {EPOLLIN, {.u64 = 0x1122334455667788}}, out[4];
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev) == 0);
    struct epoll_event ev2 = {EPOLLOUT, {.u64 = 42}};
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, p[1], &ev2) == 0);
    CHECK(epoll_wait(ep, out, 4, 1000) == 2);
    CHECK(out[0].data.u64 + out[1].data.u64 == 0x1122334455667788 + 42);
    int efd = eventfd(3, 0);
    uint64_t value = 0;
    CHECK(read(efd, &value, 8) == 8 && value == 3);
    int tfd = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec its = {{0, 0}, {0, 10000000}};
    CHECK(timerfd_settime(tfd, 0, &its, 0) == 0 && read(tfd, &value, 8) == 8 && value == 1);
    int in = inotify_init1(IN_NONBLOCK);
    CHECK(inotify_add_watch(in, ".", IN_CREATE) > 0);
    close(open("watched", O_CREAT, 0600));
    CHECK(read(in, buffer, sizeof buffer) > 0 && !strcmp(((struct inotify_event *)buffer)->name, "watched"));
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, 0);
    int sfd = signalfd(-1, &mask, 0);
    raise(SIGUSR1);
    struct signalfd_siginfo si;
    CHECK(read(sfd, &si, sizeof si) == sizeof si && si.ssi_signo == SIGUSR1);

    int s[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    char control[CMSG_SPACE(sizeof(int))] = {0};
    msg.msg_control = control, msg.msg_controllen = sizeof control;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    CHECK(sendmsg(s[0], &msg, 0) == 6);
    struct iovec in1 = {buffer, sizeof buffer};
    memset(control, 0, sizeof control);
    struct msghdr got = {.msg_iov = &in1, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK(recvmsg(s[1], &got, 0) == 6 && !memcmp(buffer, "onetwo", 6));
    int passed;
    memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&got)), sizeof passed);
    struct stat st2;
    CHECK(fstat(fd, &st) == 0 && fstat(passed, &st2) == 0 && st.st_ino == st2.st_ino);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    CHECK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof addr;
    CHECK(bind(listener, (void *)&addr, sizeof addr) == 0 && listen(listener, 4) == 0 && getsockname(listener, (void *)&addr, &len) == 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (void *)&addr, sizeof addr) == 0);
    int server = accept4(listener, 0, 0, SOCK_CLOEXEC);
    CHECK(send(client, "ping", 4, 0) == 4 && recv(server, buffer, 4, MSG_WAITALL) == 4 && !memcmp(buffer, "ping", 4));
    CHECK(shutdown(client, SHUT_WR) == 0 && recv(server, buffer, 4, 0) == 0);
    CHECK(connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&(struct sockaddr_in){.sin_family = AF_INET, .sin_port = 1, .sin_addr = {htonl(INADDR_LOOPBACK)}}, sizeof addr) == -1);

    struct timespec t1, t2;
    clock_gettime(CLOCK_MONOTONIC, &t1);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 2000000}, 0);
    clock_gettime(CLOCK_MONOTONIC, &t2);
    CHECK((t2.tv_sec - t1.tv_sec) * 1000000000ll + t2.tv_nsec - t1.tv_nsec >= 2000000);
    timer_t timer;
    struct sigevent sev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 9};
    CHECK(timer_create(CLOCK_MONOTONIC, &sev, &timer) == 0);
    CHECK(timer_settime(timer, 0, &its, 0) == 0 && read(sfd, &si, sizeof si) == sizeof si && si.ssi_int == 9);
    struct sysinfo info;
    CHECK(sysinfo(&info) == 0 && info.totalram > 0 && info.mem_unit > 0);
    CHECK(isatty(p[0]) == 0 && errno == ENOTTY);
    CHECK(sendfile(p[1], fd, &(off_t){0}, 5) == 5);
    CHECK(splice(p[0], 0, s[0], 0, 6, 0) == 6);
    CHECK(fallocate(fd, 0, 0, 4096) == 0 && fsync(fd) == 0);
    CHECK(umask(077) != 0777 && umask(077) == 077);
    CHECK(dup2(fd, 100) == 100 && fcntl(100, F_GETFD) == 0 && fcntl(100, F_SETFD, FD_CLOEXEC) == 0 && fcntl(100, F_GETFD) == 1);
    CHECK(chdir("/") == 0);
    snprintf(buffer, sizeof buffer, "rm -r %s", dir);
    CHECK(system(buffer) == 0);
    return 0;
}
