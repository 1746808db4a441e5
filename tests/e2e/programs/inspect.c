/* Something to look into: a thread that computes, one that sorts, one that waits, and a main thread that opens files and sends datagrams. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

volatile unsigned long spins;

__attribute__((noinline)) static void spin_here(void)
{
    for (;;)
        spins++;
}

__attribute__((noinline)) static void *spinner(void *arg)
{
    pthread_setname_np(pthread_self(), "spinner");
    spin_here();
    return arg;
}

/* Called by the C library, which has no frame pointers, and has none itself. */
__attribute__((noinline, optimize("omit-frame-pointer"))) static int compare_here(const void *a, const void *b)
{
    for (int n = 0; n < 200; n++)
        spins++;
    return *(const int *)a - *(const int *)b;
}

__attribute__((noinline)) static void *sorter(void *arg)
{
    static int numbers[1000];
    pthread_setname_np(pthread_self(), "sorter");
    for (;;) {
        for (int n = 0; n < 1000; n++)
            numbers[n] = n * 7919 % 1000;
        qsort(numbers, 1000, sizeof numbers[0], compare_here);
    }
    return arg;
}

__attribute__((noinline)) static ssize_t wait_here(int fd)
{
    char byte;
    ssize_t n = read(fd, &byte, 1);
    return n + byte;
}

__attribute__((noinline)) static void *waiter(void *arg)
{
    pthread_setname_np(pthread_self(), "waiter");
    if (wait_here(*(int *)arg) < 0)
        abort();
    return arg;
}

int main(void)
{
    static int fds[2];
    pthread_t threads[3];
    if (pipe(fds) || pthread_create(&threads[0], NULL, spinner, NULL) ||
        pthread_create(&threads[1], NULL, waiter, &fds[0]) || pthread_create(&threads[2], NULL, sorter, NULL)) {
        puts("cannot start");
        return 1;
    }
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(7777) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int receiver = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(receiver, (struct sockaddr *)&to, sizeof to)) {
        puts("cannot bind");
        return 1;
    }
    int null = open("/dev/null", O_WRONLY);
    struct iovec two[2] = { { "in \"two\"", 8 }, { " parts", 6 } };
    for (long round = 0;; round++) {
        if (writev(null, two, 2) != 14)
            return 1;
        char text[64];
        int fd = open("/etc/looked-for-in-vain", O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            close(fd);
        snprintf(text, sizeof text, "round %ld", round);
        sendto(s, text, strlen(text), 0, (struct sockaddr *)&to, sizeof to);
        recv(receiver, text, sizeof text, 0);
        if (round % 20 == 0) {
            printf("round %ld\n", round);
            fflush(stdout);
        }
        usleep(20000);
    }
}
