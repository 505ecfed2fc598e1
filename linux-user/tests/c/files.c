#include "check.h"
#include <dirent.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>

static char buf[65536];

static int fresh(const char *name, const char *text) {
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (write(fd, text, strlen(text)) < 0)
        abort();
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static void flags(void) {
    int fd = fresh("a", "hello world");
    T(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECTORY | O_NOFOLLOW | O_DIRECT));
    T(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK));
    T((fcntl(fd, F_GETFL) & (O_APPEND | O_NONBLOCK | O_ACCMODE)) == (O_APPEND | O_NONBLOCK | O_RDWR));
    T(fcntl(fd, F_GETFD));
    close(fd);
    T(open("a", O_RDONLY | O_DIRECTORY));
    T(open("a", O_RDWR | O_CREAT | O_EXCL, 0600));
    T(symlink("a", "link"));
    T(open("link", O_RDONLY | O_NOFOLLOW));
    T(close(open("link", O_RDONLY)));
    T(close(open("link", O_PATH | O_NOFOLLOW)));
    T(open("missing", O_RDONLY));
    T(open("a/b", O_RDONLY));
    T(open(".", O_RDWR));
    T(open(BAD, O_RDONLY));
    T(open("", O_RDONLY));
    fd = open("a", O_RDONLY | O_CLOEXEC);
    T(fcntl(fd, F_GETFD));
    close(fd);
    fd = open(".", O_RDWR | O_TMPFILE, 0600);
    OK(fd >= 0);
    T(write(fd, "x", 1));
    close(fd);
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_NO_SYMLINKS};
    T(syscall(SYS_openat2, AT_FDCWD, "link", &how, sizeof how));
    how.flags = O_RDONLY | O_DIRECTORY;
    T(close(syscall(SYS_openat2, AT_FDCWD, ".", &how, sizeof how)));
    T(syscall(SYS_openat2, AT_FDCWD, ".", &how, 8));
    T(unlink("link"));
}

static void data(void) {
    int fd = fresh("a", "0123456789abcdefghijklmnopqrstuvwxyz");
    T(read(fd, buf, 5));
    T(lseek(fd, 0, SEEK_CUR));
    T(lseek(fd, -1, SEEK_SET));
    T(lseek(fd, -2, SEEK_END));
    T(pread(fd, buf, 4, 10));
    printf("%.4s\n", buf);
    T(pwrite(fd, "XYZ", 3, 33));
    struct iovec v[3] = {{buf, 3}, {buf + 100, 0}, {buf + 200, 50}};
    lseek(fd, 0, SEEK_SET);
    T(readv(fd, v, 3));
    printf("%.3s %.33s\n", buf, buf + 200);
    T(preadv(fd, v, 3, 30));
    T(preadv2(fd, v, 3, 30, 0));
    v[2].iov_len = 2;
    T(pwritev(fd, v, 3, 0));
    T(writev(fd, v, 2000));
    T(writev(fd, BAD, 1));
    T(read(fd, BAD, 5));
    T(write(fd, BAD, 5));
    T(read(fd, BAD, 0));
    T(read(-1, buf, 1));
    T(ftruncate(fd, 100000));
    T(lseek(fd, 0, SEEK_END));
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
    T(truncate("a", 10));
    T(ftruncate(fd, -1));
    T(fsync(fd));
    T(fdatasync(fd));
    T(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    int fd2 = fresh("b", "");
    off_t off = 2;
    T(sendfile(fd2, fd, &off, 5));
    T(off);
    off_t in = 0, out = 1;
    T(copy_file_range(fd, &in, fd2, &out, 3, 0));
    T(in);
    T(out);
    int p[2], q[2];
    T(pipe2(p, O_NONBLOCK));
    T(pipe(q));
    T(read(p[0], buf, 1));
    T(write(p[1], "pipe data", 9));
    int n = 0;
    T(ioctl(p[0], FIONREAD, &n));
    T(n);
    T(tee(p[0], q[1], 4, 0));
    T(splice(p[0], NULL, fd2, &out, 9, 0));
    T(out);
    T(read(q[0], buf, 100));
    struct iovec w = {"splice", 6};
    T(vmsplice(q[1], &w, 1, 0));
    T(read(q[0], buf, 100));
    T(fcntl(p[0], F_GETPIPE_SZ));
    T(pipe2(BAD, 0));
    close(fd), close(fd2), close(p[0]), close(p[1]), close(q[0]), close(q[1]);
    T(close(fd));
}

static void names(void) {
    T(mkdir("d", 0755));
    T(mkdir("d", 0755));
    T(chdir("d"));
    close(fresh("x", "1"));
    close(fresh("y", "22"));
    T(link("x", "z"));
    T(symlink("nowhere", "dangling"));
    DIR *d = opendir(".");
    int count = 0, types = 0;
    for (struct dirent *e; (e = readdir(d));) {
        count++;
        types += e->d_type == DT_REG ? 1 : e->d_type == DT_DIR ? 100 : e->d_type == DT_LNK ? 10000 : 0;
    }
    closedir(d);
    T(count);
    T(types);
    T(readlink("dangling", buf, sizeof buf));
    T(readlink("dangling", buf, 3));
    T(readlink("x", buf, 3));
    T(access("x", R_OK | W_OK));
    T(access("dangling", F_OK));
    T(faccessat(AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
    T(rename("y", "yy"));
    T(syscall(SYS_renameat2, AT_FDCWD, "yy", AT_FDCWD, "x", 1));
    T(chmod("x", 0600));
    struct stat st;
    T(stat("x", &st));
    T(st.st_size);
    T(st.st_nlink);
    T(st.st_mode);
    OK(st.st_ino != 0 && st.st_blksize > 0 && st.st_uid == getuid());
    struct timespec times[2] = {{1000000000, 123456789}, {1500000000, 987654321}};
    T(utimensat(AT_FDCWD, "x", times, 0));
    T(stat("x", &st));
    T(st.st_atim.tv_sec);
    T(st.st_atim.tv_nsec);
    T(st.st_mtim.tv_nsec);
    T(utimensat(AT_FDCWD, "x", NULL, 0));
    T(lstat("dangling", &st));
    T(st.st_size);
    T(stat("dangling", &st));
    T(stat("x", BAD));
    T(fstatat(AT_FDCWD, "x", &st, 0x40000000));
    struct statx sx;
    T(syscall(SYS_statx, AT_FDCWD, "x", 0, STATX_BASIC_STATS, &sx));
    T(sx.stx_size);
    T(sx.stx_mode);
    T(sx.stx_nlink);
    struct statfs sf;
    T(statfs(".", &sf));
    OK(sf.f_bsize >= 512 && sf.f_blocks > 0 && sf.f_namelen == 255);
    T(statfs("missing", &sf));
    T(getcwd(buf, 3));
    OK(getcwd(buf, sizeof buf) && strstr(buf, "/d"));
    T(umask(022));
    T(umask(077));
    umask(022);
    T(mknod("fifo", S_IFIFO | 0644, 0));
    T(stat("fifo", &st));
    T(st.st_mode);
    T(setxattr("x", "user.k", "value", 5, 0));
    T(getxattr("x", "user.k", buf, 100));
    T(getxattr("x", "user.none", buf, 100));
    T(listxattr("x", buf, 100) >= 7);
    T(removexattr("x", "user.k"));
    for (char **n = (char *[]){"x", "yy", "z", "dangling", "fifo", 0}; *n; n++)
        T(unlink(*n));
    T(chdir(".."));
    T(rmdir("d"));
    T(rmdir("d"));
}

static void descriptors(void) {
    int fd = fresh("a", "abc");
    T(dup2(fd, 100));
    T(dup3(fd, 101, O_CLOEXEC));
    T(fcntl(101, F_GETFD));
    T(dup3(fd, fd, 0));
    T(fcntl(fd, F_DUPFD, 200));
    T(fcntl(fd, F_DUPFD_CLOEXEC, 201));
    T(syscall(SYS_close_range, 100, 300, 0));
    T(fcntl(200, F_GETFD));
    T(syscall(SYS_close_range, 10u, ~0u, 0));
    T(flock(fd, LOCK_EX | LOCK_NB));
    int fd2 = open("a", O_RDWR);
    T(flock(fd2, LOCK_EX | LOCK_NB));
    T(flock(fd, LOCK_UN));
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 2};
    T(fcntl(fd, F_OFD_SETLK, &l));
    struct flock g = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    T(fcntl(fd2, F_OFD_GETLK, &g));
    T(g.l_type == F_WRLCK && g.l_start == 1 && g.l_len == 2 && g.l_pid == -1);
    T(fcntl(fd2, F_OFD_SETLK, &g));
    T(fcntl(fd, F_SETLK, &l));
    T(fcntl(fd, 9999, 0));
    T(fcntl(-1, F_GETFD));
    int e = eventfd(3, EFD_NONBLOCK);
    uint64_t v = 4;
    T(write(e, &v, 8));
    T(read(e, &v, 8));
    T(v);
    T(read(e, &v, 8));
    close(e);
    int m = syscall(SYS_memfd_create, "m", MFD_ALLOW_SEALING);
    T(ftruncate(m, 10));
    T(fcntl(m, F_ADD_SEALS, F_SEAL_GROW));
    T(ftruncate(m, 20));
    close(m);
    int in = inotify_init1(IN_NONBLOCK);
    T(inotify_add_watch(in, ".", IN_CREATE));
    close(fresh("new", ""));
    struct inotify_event *ev = (void *)buf;
    T(read(in, buf, sizeof buf) > 16);
    printf("%x %s\n", ev->mask, ev->name);
    unlink("new");
    close(in);
    struct winsize ws;
    T(ioctl(fd, TIOCGWINSZ, &ws));
    T(ioctl(fd, 0xdeadbeef, 0));
    T(ioctl(-1, 0xdeadbeef, 0));
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY);
    ws = (struct winsize){24, 80, 1, 2};
    T(ioctl(master, TIOCSWINSZ, &ws));
    memset(&ws, 0, sizeof ws);
    T(ioctl(master, TIOCGWINSZ, &ws));
    T(ws.ws_row * 1000 + ws.ws_col);
    T(isatty(master));
    T(isatty(fd));
    int zero = 0;
    T(ioctl(master, TIOCSPTLCK, &zero));
    OK(ptsname(master) && strncmp(ptsname(master), "/dev/pts/", 9) == 0);
    close(master), close(fd), close(fd2);
}

int main(void) {
    flags();
    data();
    names();
    descriptors();
}
