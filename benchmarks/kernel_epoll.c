// Kernel-TCP lifecycles by epoll, one thread a side: the fastest plain program there is to compare with.
//
//   kernel_epoll server PORTS                            listens on PORTS ports that the system chooses
//   kernel_epoll client IN_FLIGHT PAYLOAD PORT...        connects to them in turn
//
// What is said on stdin and stdout stands in peers.py.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 65536
#define BATCH 512
#define SAMPLE_EVERY 8 // lifecycles whose duration is kept
#define MAX_SAMPLES (1 << 22)

static int ep;
static double begin = 1e300, end = 1e300; // the measured interval, CLOCK_MONOTONIC seconds
static double began, ended, cpu_began, cpu_ended;
static long done, done_at_begin, done_at_end, errors;
static int in_interval;
static char buf[65536];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1e-6;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

// Notes the counters when the interval begins and ends.
static void tick(double t) {
    if (!in_interval && t >= begin && !ended) {
        in_interval = 1, began = t, cpu_began = cpu(), done_at_begin = done;
    } else if (in_interval && t >= end) {
        in_interval = 0, ended = t, cpu_ended = cpu(), done_at_end = done;
    }
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

// Kilobytes; ru_maxrss would survive exec and tell of the parent.
static long peak_rss(void) {
    char line[256];
    long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmHWM: %ld", &kb);
    if (f) fclose(f);
    return kb;
}

static void report(float *samples, long n, long unfinished) {
    printf("{\"lifecycles\": %ld, \"interval\": %.6f, \"cpu_seconds\": %.6f, \"peak_rss\": %ld, \"errors\": %ld, "
           "\"unfinished\": %ld",
           done_at_end - done_at_begin, ended - began, cpu_ended - cpu_began, peak_rss() * 1024, errors, unfinished);
    if (n) {
        qsort(samples, n, sizeof *samples, by_value);
        printf(", \"latencies_us\": [%.1f, %.1f]", samples[n / 2], samples[n - 1 - n / 100]);
    }
    printf("}\n");
    fflush(stdout);
}

static void watch(int fd, unsigned events) {
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

// A line "BEGIN END" on stdin; false at its end.
static int read_interval(void) {
    char line[128];
    ssize_t n = read(0, line, sizeof line - 1);
    if (n <= 0) return 0;
    line[n] = 0;
    if (sscanf(line, "%lf %lf", &begin, &end) != 2) die("interval");
    return 1;
}

// Echoes until the peer's FIN, or until there is nothing more for now.
static int serve(int fd) {
    for (;;) {
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        if (n > 0) {
            if (send(fd, buf, n, MSG_NOSIGNAL) != n) errors++;
        } else if (n == 0) {
            close(fd);
            done++;
            return 0;
        } else if (errno == EAGAIN) {
            return 1;
        } else {
            errors++;
            close(fd);
            return 0;
        }
    }
}

static int server(int ports) {
    static char listens[MAX_FD];
    printf("{\"ports\": [");
    for (int i = 0; i < ports; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof a;
        if (bind(fd, (void *)&a, size) || listen(fd, 4096) || getsockname(fd, (void *)&a, &size)) die("listen");
        listens[fd] = 1;
        watch(fd, EPOLLIN);
        printf("%s%d", i ? ", " : "", ntohs(a.sin_port));
    }
    printf("]}\n");
    fflush(stdout);
    watch(0, EPOLLIN);
    struct epoll_event events[BATCH];
    for (;;) {
        int n = epoll_wait(ep, events, BATCH, 10);
        tick(now());
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == 0) {
                if (!read_interval()) {
                    report(NULL, 0, 0);
                    return 0;
                }
            } else if (listens[fd]) {
                int c;
                while ((c = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
                    if (serve(c)) watch(c, EPOLLIN | EPOLLET);
            } else {
                serve(fd);
            }
        }
    }
}

static int payload, live;
static int port_count, *ports;
static struct {
    double started;
    int got, connected;
} conns[MAX_FD];

static int speak(int fd) {
    conns[fd].connected = 1;
    if (!payload) return shutdown(fd, SHUT_WR);
    return send(fd, buf, payload, MSG_NOSIGNAL) == payload ? 0 : -1;
}

static void start(void) {
    static unsigned turn;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || fd >= MAX_FD) die("socket");
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    a.sin_port = htons(ports[turn % port_count]);
    conns[fd].started = turn % SAMPLE_EVERY ? 0 : now();
    conns[fd].got = conns[fd].connected = 0;
    turn++;
    if (connect(fd, (void *)&a, sizeof a) && errno != EINPROGRESS) die("connect");
    // On loopback the handshake is over by now, and asking again tells so: a wake-up less in most lifecycles.
    if (!connect(fd, (void *)&a, sizeof a) && speak(fd)) errors++;
    watch(fd, EPOLLIN | EPOLLOUT | EPOLLET);
    live++;
}

static void finish(int fd, int stopping) {
    close(fd);
    live--;
    if (!stopping) start();
}

// True when the connection has come to its end.
static int advance(int fd, unsigned events) {
    if (events & EPOLLERR) return errors++, 1;
    if (!conns[fd].connected) {
        if (!(events & EPOLLOUT)) return 0;
        if (speak(fd)) return errors++, 1;
    }
    if (!(events & EPOLLIN)) return 0;
    for (;;) {
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        if (n > 0) {
            conns[fd].got += n;
            if (conns[fd].got >= payload) shutdown(fd, SHUT_WR);
        } else if (n == 0) {
            return done++, 1;
        } else if (errno == EAGAIN) {
            return 0;
        } else {
            return errors++, 1;
        }
    }
}

static int client(int in_flight) {
    float *samples = malloc(MAX_SAMPLES * sizeof *samples);
    long sampled = 0;
    printf("{}\n");
    fflush(stdout);
    if (!read_interval()) return 1;
    for (int i = 0; i < in_flight; i++) start();
    struct epoll_event events[BATCH];
    while (live && (!ended || now() < ended + 5)) {
        int n = epoll_wait(ep, events, BATCH, 10);
        tick(now());
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            long before = done;
            if (!advance(fd, events[i].events)) continue;
            if (in_interval && done > before && conns[fd].started && sampled < MAX_SAMPLES)
                samples[sampled++] = (now() - conns[fd].started) * 1e6;
            finish(fd, ended > 0);
        }
    }
    report(samples, sampled, live);
    return 0;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    ep = epoll_create1(EPOLL_CLOEXEC);
    if (argc == 3 && !strcmp(argv[1], "server")) return server(atoi(argv[2]));
    if (argc >= 5 && !strcmp(argv[1], "client")) {
        payload = atoi(argv[3]);
        port_count = argc - 4;
        ports = calloc(port_count, sizeof *ports);
        for (int i = 0; i < port_count; i++) ports[i] = atoi(argv[4 + i]);
        return client(atoi(argv[2]));
    }
    fprintf(stderr, "usage: kernel_epoll server PORTS | client IN_FLIGHT PAYLOAD PORT...\n");
    return 2;
}
