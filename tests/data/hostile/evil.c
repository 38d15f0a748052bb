/* What hostile code tries to reach. "evil KIND WHAT" exits with 0 when it got there. Valid as C and as C++. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int evil_read(const char *path) {
    char text[200] = "";
    int file = open(path, O_RDONLY);
    ssize_t got = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (got > 0) fprintf(stderr, "got %s\n", text);
    return got > 0;
}

static int evil_list(const char *path) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    int found = 0;
    while (folder && (entry = readdir(folder))) found += entry->d_name[0] != '.';
    return found > 0;
}

static int evil_write(const char *path, int flags) {
    int file = open(path, O_WRONLY | flags, 0600);
    return file >= 0;
}

static int evil_tcp(const char *port) {
    struct sockaddr_in to;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons((unsigned short)atoi(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(s, (struct sockaddr *)&to, sizeof to) == 0;
}

/* A path, or with "@" before it an abstract name. */
static int evil_unix(const char *name) {
    struct sockaddr_un to;
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&to, 0, sizeof to);
    to.sun_family = AF_UNIX;
    strncpy(to.sun_path, name, sizeof to.sun_path - 1);
    if (name[0] == '@') to.sun_path[0] = 0;
    return connect(s, (struct sockaddr *)&to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))) == 0;
}

static int evil_see(const char *pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
    return evil_read(path);
}

static int evil_trace(int pid) {
    if (ptrace((enum __ptrace_request)PTRACE_ATTACH, pid, 0, 0) != 0) return 0;
    waitpid(pid, 0, __WALL);
    ptrace((enum __ptrace_request)PTRACE_DETACH, pid, 0, 0);
    return 1;
}

/* A process in a session and an environment of its own, with a mark among its words. */
static int evil_daemon(const char *mark) {
    if (fork() == 0) {
        char *words[] = {(char *)"sh", (char *)"-c", (char *)"sleep 300; :", (char *)mark, 0}, *none[] = {0};
        setsid();
        close(0), close(1), close(2);
        if (fork() == 0) execve("/bin/sh", words, none);
        _exit(0);
    }
    usleep(200000);
    return 1;
}

static int evil_mount(const char *where) {
    int child = fork(), code = 1;
    if (child == 0) _exit(unshare(CLONE_NEWUSER | CLONE_NEWNS) || mount("x", where, "tmpfs", 0, 0));
    waitpid(child, &code, 0);
    return code == 0;
}

static int evil(const char *kind, const char *what) {
    if (!strcmp(kind, "read")) return evil_read(what);
    if (!strcmp(kind, "list")) return evil_list(what);
    if (!strcmp(kind, "write")) return evil_write(what, O_CREAT);
    if (!strcmp(kind, "change")) return evil_write(what, 0);
    if (!strcmp(kind, "tcp")) return evil_tcp(what);
    if (!strcmp(kind, "unix")) return evil_unix(what);
    if (!strcmp(kind, "kill")) return kill(atoi(what), SIGTERM) == 0;
    if (!strcmp(kind, "see")) return evil_see(what);
    if (!strcmp(kind, "trace")) return evil_trace(atoi(what));
    if (!strcmp(kind, "daemon")) return evil_daemon(what);
    if (!strcmp(kind, "mount")) return evil_mount(what);
    return 0;
}

#ifndef EVIL_INCLUDED
int main(int argc, char **argv) { return argc == 3 && evil(argv[1], argv[2]) ? 0 : 1; }
#endif
