// SPDX-License-Identifier: Apache-2.0

#include "tests/testing/tcp_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/check.h"

namespace ft::testing {
namespace {

constexpr int kPollMs = 20;
constexpr size_t kHttp2Head = 9;
constexpr size_t kHttp2Type = 3;
constexpr char kHttp2Headers = 1;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool SendAll(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (put <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(put));
  }
  return true;
}

// Walks over the frames of a stream of bytes and says where the first answer
// begins.
class FrameWalk {
 public:
  // The place in `bytes` of a HEADERS frame's head; npos: there is none.
  size_t FindHeaders(absl::string_view bytes) {
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (payload_left_ > 0) {
        --payload_left_;
        continue;
      }
      head_.push_back(bytes[i]);
      if (head_.size() < kHttp2Head) continue;
      const bool is_headers = head_[kHttp2Type] == kHttp2Headers;
      for (int k = 0; k < 3; ++k) {
        payload_left_ =
            payload_left_ * 256 +
            static_cast<unsigned char>(head_[static_cast<size_t>(k)]);
      }
      head_.clear();
      if (is_headers) return i + 1 < kHttp2Head ? 0 : i + 1 - kHttp2Head;
    }
    return absl::string_view::npos;
  }

 private:
  std::string head_;
  int64_t payload_left_ = 0;
};

}  // namespace

struct TcpProxy::Connection {
  UniqueFd client;
  UniqueFd server;
  FrameWalk answers;
  int64_t cuts_before = 0;
};

TcpProxy::TcpProxy(const std::string& target) : target_(target) {
  listener_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  FT_CHECK(bind(listener_.get(), generic, size) == 0);
  FT_CHECK(listen(listener_.get(), 128) == 0);
  FT_CHECK(getsockname(listener_.get(), generic, &size) == 0);
  address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  acceptor_ = std::thread([this] { Accept(); });
}

TcpProxy::~TcpProxy() {
  is_over_ = true;
  acceptor_.join();
  absl::MutexLock lock(&mutex_);
  const auto ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return relays_ == 0;
  };
  mutex_.Await(absl::Condition(&ended));
}

void TcpProxy::CutAfter(Direction direction, int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  Way& way = ways_[static_cast<int>(direction)];
  way.cut_at = way.passed + bytes;
}

void TcpProxy::FlipAt(Direction direction, int64_t byte) {
  absl::MutexLock lock(&mutex_);
  Way& way = ways_[static_cast<int>(direction)];
  way.flip_at = way.passed + byte;
}

void TcpProxy::Swallow(Direction direction, bool is_on) {
  absl::MutexLock lock(&mutex_);
  ways_[static_cast<int>(direction)].swallows = is_on;
}

void TcpProxy::Delay(Direction direction, absl::Duration by) {
  absl::MutexLock lock(&mutex_);
  ways_[static_cast<int>(direction)].delay = by;
}

void TcpProxy::DropAnswers(int64_t count) {
  absl::MutexLock lock(&mutex_);
  answers_to_drop_ = count;
}

void TcpProxy::CutAll() { ++cuts_; }

int64_t TcpProxy::passed(Direction direction) const {
  absl::MutexLock lock(&mutex_);
  return ways_[static_cast<int>(direction)].passed;
}

int64_t TcpProxy::connections() const {
  absl::MutexLock lock(&mutex_);
  return connections_;
}

int64_t TcpProxy::dropped_answers() const {
  absl::MutexLock lock(&mutex_);
  return dropped_;
}

void TcpProxy::Accept() {
  const size_t colon = target_.rfind(':');
  int port = 0;
  FT_CHECK(absl::SimpleAtoi(target_.substr(colon + 1), &port));
  while (!is_over_) {
    pollfd wait{.fd = listener_.get(), .events = POLLIN, .revents = 0};
    if (poll(&wait, 1, kPollMs) <= 0) continue;
    auto connection = std::make_shared<Connection>();
    connection->cuts_before = cuts_;
    connection->client =
        UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    connection->server =
        UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in to = Loopback(port);
    const int now = 1;
    for (const UniqueFd* fd : {&connection->client, &connection->server}) {
      setsockopt(fd->get(), IPPROTO_TCP, TCP_NODELAY, &now, sizeof(now));
    }
    // A server that is away: the client sees its connection end.
    if (connect(connection->server.get(),
                reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) {
      continue;
    }
    absl::MutexLock lock(&mutex_);
    ++connections_;
    ++relays_;
    std::thread([this, connection] { Relay(*connection); }).detach();
  }
}

void TcpProxy::Relay(Connection& connection) {
  while (!is_over_ && cuts_ == connection.cuts_before) {
    pollfd ends[] = {
        {.fd = connection.client.get(), .events = POLLIN, .revents = 0},
        {.fd = connection.server.get(), .events = POLLIN, .revents = 0}};
    if (poll(ends, 2, kPollMs) < 0) break;
    if (ends[0].revents != 0 && !Pass(connection, Direction::kToServer)) break;
    if (ends[1].revents != 0 && !Pass(connection, Direction::kToClient)) break;
  }
  connection.client.Close();
  connection.server.Close();
  absl::MutexLock lock(&mutex_);
  --relays_;
}

// Passes on what there is; false: the connection is over.
bool TcpProxy::Pass(Connection& connection, Direction direction) {
  const bool to_server = direction == Direction::kToServer;
  const int from =
      to_server ? connection.client.get() : connection.server.get();
  const int to = to_server ? connection.server.get() : connection.client.get();
  char buffer[1 << 16];
  const ssize_t got = recv(from, buffer, sizeof(buffer), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got <= 0) return false;
  std::string bytes(buffer, static_cast<size_t>(got));

  absl::Duration delay;
  bool cuts = false;
  {
    absl::MutexLock lock(&mutex_);
    Way& way = ways_[static_cast<int>(direction)];
    if (way.swallows) return true;
    delay = way.delay;
    if (!to_server) {
      const size_t answer = connection.answers.FindHeaders(bytes);
      if (answer != std::string::npos && answers_to_drop_ > 0) {
        --answers_to_drop_;
        ++dropped_;
        bytes.resize(answer);
        cuts = true;
      }
    }
    const auto size = static_cast<int64_t>(bytes.size());
    if (way.flip_at.has_value() && *way.flip_at < way.passed + size) {
      bytes[static_cast<size_t>(*way.flip_at - way.passed)] ^= 0x10;
      way.flip_at.reset();
    }
    if (way.cut_at.has_value() && *way.cut_at <= way.passed + size) {
      bytes.resize(static_cast<size_t>(*way.cut_at - way.passed));
      way.cut_at.reset();
      cuts = true;
    }
    way.passed += static_cast<int64_t>(bytes.size());
  }
  if (delay > absl::ZeroDuration()) absl::SleepFor(delay);
  return SendAll(to, bytes) && !cuts;
}

}  // namespace ft::testing
