/* Waits for SIGTERM, says so and ends with 7. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void on_term(int signal)
{
    (void)signal;
    asked = 1;
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    printf("waiting\n");
    fflush(stdout);
    while (!asked)
        pause();
    printf("asked to end\n");
    return 7;
}
