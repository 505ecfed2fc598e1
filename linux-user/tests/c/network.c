#include "check.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

static char buf[4096];

static void unix_sockets(void) {
    int s[2];
    T(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s));
    T(fcntl(s[0], F_GETFD));
    T((fcntl(s[0], F_GETFL) & O_NONBLOCK) != 0);
    T(recv(s[0], buf, 1, 0));
    T(send(s[1], "hello", 5, MSG_NOSIGNAL));
    T(recv(s[0], buf, 3, MSG_PEEK));
    T(recv(s[0], buf, 100, 0));
    // A descriptor and credentials travel.
    int on = 1;
    T(setsockopt(s[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    int file = open("sent", O_RDWR | O_CREAT | O_TRUNC, 0600);
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec v[2] = {{"ab", 2}, {"cde", 3}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &file, sizeof file);
    T(sendmsg(s[1], &m, 0));
    char in[256];
    struct iovec w[2] = {{buf, 1}, {buf + 1, 100}};
    struct msghdr r = {.msg_iov = w, .msg_iovlen = 2, .msg_control = in, .msg_controllen = sizeof in};
    T(recvmsg(s[0], &r, MSG_CMSG_CLOEXEC));
    printf("%.5s flags %x\n", buf, r.msg_flags & ~MSG_CMSG_CLOEXEC);
    for (c = CMSG_FIRSTHDR(&r); c; c = CMSG_NXTHDR(&r, c)) {
        printf("control %d %zu\n", c->cmsg_type, c->cmsg_len);
        if (c->cmsg_type == SCM_RIGHTS) {
            int got;
            struct stat a, b;
            memcpy(&got, CMSG_DATA(c), sizeof got);
            OK(fstat(got, &a) == 0 && fstat(file, &b) == 0 && a.st_ino == b.st_ino);
            T(fcntl(got, F_GETFD));
        } else {
            struct ucred cred;
            memcpy(&cred, CMSG_DATA(c), sizeof cred);
            OK(cred.pid == getpid() && cred.uid == getuid());
        }
    }
    struct ucred peer;
    socklen_t len = sizeof peer;
    T(getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &peer, &len));
    OK(peer.pid == getpid());
    T(shutdown(s[1], SHUT_WR));
    T(recv(s[0], buf, 1, 0));
    close(s[0]), close(s[1]), close(file);
    // Named and abstract addresses.
    for (int i = 0; i < 2; i++) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        sprintf(a.sun_path + i, i ? "tulk-test-%d" : "sock", getpid());
        unlink(a.sun_path);
        int l = socket(AF_UNIX, SOCK_SEQPACKET, 0), d = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        socklen_t n = i ? 2 + 1 + strlen(a.sun_path + 1) : sizeof a;
        T(connect(d, (void *)&a, sizeof a.sun_family));
        T(bind(l, (void *)&a, n));
        T(listen(l, 5));
        T(connect(d, (void *)&a, n));
        struct sockaddr_un b = {0};
        len = sizeof b;
        int e = accept(l, (void *)&b, &len);
        OK(e >= 0);
        T(len);
        len = sizeof b;
        T(getpeername(d, (void *)&b, &len));
        OK(strcmp(b.sun_path + i, a.sun_path + i) == 0);
        T(send(d, "message", 7, 0));
        T(recv(e, buf, 3, MSG_TRUNC));
        close(l), close(d), close(e);
    }
}

static void internet(void) {
    int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, b;
    socklen_t len = sizeof b;
    T(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    T(bind(l, (void *)&a, sizeof a));
    T(getsockname(l, (void *)&b, &len));
    T(len);
    T(b.sin_family);
    OK(b.sin_port != 0);
    T(listen(l, 5));
    int c = socket(AF_INET, SOCK_STREAM, 0);
    T(connect(c, (void *)&b, sizeof b));
    len = 4;
    int s = accept4(l, (void *)&a, &len, SOCK_CLOEXEC);
    T(len);
    T(fcntl(s, F_GETFD));
    T(setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    int v = 0;
    len = sizeof v;
    T(getsockopt(c, IPPROTO_TCP, TCP_NODELAY, &v, &len));
    T(v);
    T(getsockopt(c, SOL_SOCKET, SO_TYPE, &v, &len));
    T(v);
    T(getsockopt(c, SOL_SOCKET, SO_ERROR, &v, &len));
    T(v);
    struct timeval tv = {0, 50000};
    T(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    T(recv(s, buf, 1, 0));
    memset(&tv, 0, sizeof tv);
    len = sizeof tv;
    T(getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, &len));
    T(tv.tv_usec > 0);
    struct linger lg = {1, 2};
    T(setsockopt(s, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
    struct tcp_info info;
    len = sizeof info;
    T(getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &len));
    T(info.tcpi_state);
    T(setsockopt(s, 12345, 1, &on, sizeof on));
    T(getsockopt(s, SOL_SOCKET, SO_TYPE, BAD, &len));
    close(c), close(s), close(l);
    // Datagrams, several at once.
    int u = socket(AF_INET, SOCK_DGRAM, 0), w = socket(AF_INET, SOCK_DGRAM, 0);
    a.sin_port = 0, a.sin_family = AF_INET, a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    T(bind(u, (void *)&a, sizeof a));
    len = sizeof b;
    T(getsockname(u, (void *)&b, &len));
    T(sendto(w, "one", 3, 0, (void *)&b, sizeof b));
    len = sizeof a;
    T(recvfrom(u, buf, sizeof buf, 0, (void *)&a, &len));
    T(len);
    struct iovec iv[3] = {{"aa", 2}, {"bbb", 3}, {"cccc", 4}};
    struct mmsghdr mm[3] = {0};
    for (int i = 0; i < 3; i++)
        mm[i].msg_hdr = (struct msghdr){&b, sizeof b, iv + i, 1};
    T(sendmmsg(w, mm, 3, 0));
    T(mm[2].msg_len);
    struct iovec ov[4] = {{buf, 10}, {buf + 10, 10}, {buf + 20, 10}, {buf + 30, 10}};
    struct mmsghdr rm[4] = {0};
    for (int i = 0; i < 4; i++)
        rm[i].msg_hdr = (struct msghdr){0, 0, ov + i, 1};
    T(recvmmsg(u, rm, 4, MSG_WAITFORONE, 0));
    T(rm[0].msg_len * 100 + rm[1].msg_len * 10 + rm[2].msg_len);
    struct ifreq ifr = {0};
    strcpy(ifr.ifr_name, "lo");
    T(ioctl(u, SIOCGIFINDEX, &ifr));
    T(ifr.ifr_ifindex);
    struct ifconf ic = {sizeof buf, {buf}};
    T(ioctl(u, SIOCGIFCONF, &ic));
    OK(ic.ifc_len >= (int)sizeof(struct ifreq));
    close(u), close(w);
    T(socket(AF_INET, 77, 0));
    T(socket(200, SOCK_STREAM, 0));
}

static void waiting(void) {
    int p[2];
    T(pipe(p));
    struct pollfd f[2] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}};
    T(poll(f, 2, 0));
    T(f[0].revents * 100 + f[1].revents);
    T(write(p[1], "x", 1));
    T(poll(f, 2, -1));
    T(f[0].revents * 100 + f[1].revents);
    f[0].fd = 9999;
    T(poll(f, 1, 0));
    T(f[0].revents);
    fd_set r, w;
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_SET(p[0], &r);
    FD_SET(p[1], &w);
    struct timeval tv = {1, 0};
    T(select(p[1] + 1, &r, &w, 0, &tv));
    T(FD_ISSET(p[0], &r) * 10 + FD_ISSET(p[1], &w));
    T(read(p[0], buf, 1));
    tv = (struct timeval){0, 20000};
    FD_ZERO(&r);
    FD_SET(p[0], &r);
    T(select(p[0] + 1, &r, 0, 0, &tv));
    T(tv.tv_sec + tv.tv_usec);
    T(FD_ISSET(p[0], &r));
    int e = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {EPOLLIN | EPOLLET, {.u64 = 0x1122334455667788}}, got[4];
    T(epoll_ctl(e, EPOLL_CTL_ADD, p[0], &ev));
    T(epoll_ctl(e, EPOLL_CTL_ADD, p[0], &ev));
    ev.data.u64 = 7, ev.events = EPOLLOUT;
    T(epoll_ctl(e, EPOLL_CTL_ADD, p[1], &ev));
    T(epoll_wait(e, got, 4, 0));
    T(got[0].data.u64);
    T(write(p[1], "y", 1));
    T(epoll_wait(e, got, 4, 10));
    OK(got[0].data.u64 + got[1].data.u64 == 7 + 0x1122334455667788);
    T(epoll_ctl(e, EPOLL_CTL_DEL, p[1], 0));
    T(epoll_wait(e, got, 4, 10));
    T(epoll_wait(e, got, 0, 10));
    T(epoll_wait(e, BAD, 1, 0));
    close(e), close(p[0]), close(p[1]);
}

int main(void) {
    unix_sockets();
    internet();
    waiting();
}
