// Very many threads that wait, and very many areas of memory, whose list it reads as a program does.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS = 12000, AREAS = 40000, PAGE = 4096 };

static void *waiter(void *arg)
{
    pause();
    return arg;
}

int main(void)
{
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 16384);
    for (int n = 0; n < THREADS; n++) {
        pthread_t thread;
        if (pthread_create(&thread, &small, waiter, NULL)) {
            perror("pthread_create");
            return 1;
        }
    }
    char *pages = mmap(NULL, (size_t)AREAS * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    for (int n = 0; n < AREAS; n += 2)
        if (mprotect(pages + (size_t)n * PAGE, PAGE, PROT_READ | PROT_WRITE)) {
            perror("mprotect");
            return 1;
        }
    int lines = 0;
    for (int smaps = 0; smaps < 2; smaps++) {
        static char text[1 << 16];
        FILE *file = fopen(smaps ? "/proc/self/smaps" : "/proc/self/maps", "r");
        if (!file) {
            perror("/proc/self");
            return 1;
        }
        while (fgets(text, sizeof text, file))
            lines++;
        fclose(file);
    }
    printf("many: %d lines\n", lines);
    fflush(stdout);
    pause();
}
