/* In the guest: what Linux wants before it takes ESP out of UDP. A socket on port 4500 that says so, a member of the
 * group whose address is the argument. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { UDP_ENCAP_OPTION = 100, ESP_IN_UDP = 2, PORT = 4500 };

int main(int argc, char **argv)
{
    int encapsulation = ESP_IN_UDP;
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in here;
    struct ip_mreqn member;

    if (argc != 2 || udp < 0)
        return 2;
    memset(&here, 0, sizeof here);
    here.sin_family = AF_INET;
    here.sin_port = htons(PORT);
    memset(&member, 0, sizeof member);
    inet_pton(AF_INET, argv[1], &member.imr_multiaddr);
    member.imr_ifindex = 2;
    if (bind(udp, (struct sockaddr *)&here, sizeof here) != 0
        || setsockopt(udp, IPPROTO_UDP, UDP_ENCAP_OPTION, &encapsulation, sizeof encapsulation) != 0
        || setsockopt(udp, IPPROTO_IP, IP_ADD_MEMBERSHIP, &member, sizeof member) != 0) {
        perror("listen");
        return 1;
    }
    for (;;)
        pause();
}
