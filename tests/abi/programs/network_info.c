/* What programs ask about interfaces: getifaddrs, if_nameindex, ioctls, getaddrinfo of numbers. */
#include "abi.h"
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <arpa/inet.h>
int main(void) {
    enter("network_info");
    struct ifaddrs *all; T(getifaddrs(&all));
    int v4 = 0, v6 = 0, link = 0;
    for (struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (strcmp(i->ifa_name, "lo") || !i->ifa_addr) continue;
        if (i->ifa_addr->sa_family == AF_INET) { char b[64]; inet_ntop(AF_INET, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, b, sizeof b); v4++; TEXT("lo %s up %d loopback %d", b, !!(i->ifa_flags & IFF_UP), !!(i->ifa_flags & IFF_LOOPBACK)); }
        if (i->ifa_addr->sa_family == AF_INET6) v6++;
        if (i->ifa_addr->sa_family == AF_PACKET) link++;
    }
    SHOW(v4); SHOW(link); (void)v6;
    freeifaddrs(all);
    T(if_nametoindex("lo")); T(if_nametoindex("absent0"));
    char n[IF_NAMESIZE]; T(if_indextoname(1, n) != NULL); TEXT("%s", n);
    int s = socket(AF_INET, SOCK_DGRAM, 0); struct ifreq r; memset(&r, 0, sizeof r); strcpy(r.ifr_name, "lo");
    T(ioctl(s, SIOCGIFADDR, &r)); TEXT("%s", inet_ntoa(((struct sockaddr_in *)&r.ifr_addr)->sin_addr));
    T(ioctl(s, SIOCGIFNETMASK, &r)); TEXT("%s", inet_ntoa(((struct sockaddr_in *)&r.ifr_addr)->sin_addr));
    T(ioctl(s, SIOCGIFMTU, &r)); SHOW(r.ifr_mtu); T(ioctl(s, SIOCGIFHWADDR, &r)); SHOW(r.ifr_hwaddr.sa_family);
    T(ioctl(s, SIOCGIFFLAGS, &r)); SHOW(!!(r.ifr_flags & IFF_RUNNING));
    strcpy(r.ifr_name, "absent0"); T(ioctl(s, SIOCGIFADDR, &r));
    struct addrinfo h = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV }, *ai;
    T(getaddrinfo("127.0.0.1", "80", &h, &ai)); SHOW(ai->ai_family); SHOW(ai->ai_protocol); freeaddrinfo(ai);
    T(getaddrinfo("::1", "80", &h, &ai)); SHOW(ai->ai_family); freeaddrinfo(ai);
    int nl = OK(socket(AF_NETLINK, SOCK_RAW, 0)); T(socket(AF_NETLINK, SOCK_STREAM, 0)); T(send(nl, "x", 1, 0)); T(recv(nl, n, 1, MSG_DONTWAIT));
    return leave();
}
