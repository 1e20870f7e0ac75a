#include "collective/gloo/hub.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "base/env.h"
#include "base/text.h"
#include "collective/gloo/sockets.h"

namespace th::collective {
namespace {

constexpr int kPollMs = 50;
constexpr int64_t kBeatNs = 200 * kMillisecond;

int64_t now_ns() { return Env::real().monotonic_ns(); }

std::string name_of(const Hello& hello) { return fmt::format("rank {} on node {}", hello.rank, hello.node); }

}  // namespace

Result<std::unique_ptr<Hub>> Hub::open(const Rendezvous& rendezvous, const MeetingOptions& options) {
  TH_TRY(UniqueFd listener, listen_on(rendezvous.master_addr, rendezvous.master_port));
  return std::unique_ptr<Hub>(new Hub(std::move(listener), rendezvous, options));
}

Hub::Hub(UniqueFd listener, const Rendezvous& rendezvous, const MeetingOptions& options)
    : listener_(std::move(listener)),
      rendezvous_(rendezvous),
      options_(options),
      deadline_ns_(now_ns() + options.connect_timeout_ns),
      thread_([this](std::stop_token stop) { run(stop); }) {}

void Hub::run(std::stop_token stop) {
  while (!stop.stop_requested()) {
    std::vector<pollfd> wanted = {{.fd = listener_.get(), .events = POLLIN, .revents = 0}};
    for (const Peer& peer : peers_) {
      const short events = peer.out.empty() ? POLLIN : POLLIN | POLLOUT;
      wanted.push_back({.fd = peer.socket.get(), .events = events, .revents = 0});
    }
    poll(wanted.data(), wanted.size(), kPollMs);
    for (Peer& peer : peers_) read(peer);
    accept_all();
    look_around();
    flush();
    peers_.remove_if([](const Peer& peer) { return !peer.socket; });
  }
}

void Hub::accept_all() {
  for (;;) {
    UniqueFd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) return;
    peers_.emplace_back(std::move(socket), now_ns());
  }
}

void Hub::read(Peer& peer) {
  char buffer[16 << 10];
  for (;;) {
    const ssize_t got = recv(peer.socket.get(), buffer, sizeof(buffer), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (got <= 0) return lost(peer, got == 0 ? "died" : std::string("died (") + strerror(errno) + ")");
    peer.heard_ns = now_ns();
    peer.reader.feed({buffer, static_cast<size_t>(got)});
  }
  for (;;) {
    auto frame = peer.reader.next();
    if (!frame) return lost(peer, "sent what is no message");
    if (!*frame) return;
    take(peer, **frame);
  }
}

void Hub::take(Peer& peer, const Frame& frame) {
  if (frame.kind == FrameKind::kHello) return take_hello(peer, frame);
  if (!peer.hello) return;
  const int rank = peer.hello->rank;
  switch (frame.kind) {
    case FrameKind::kAddress:
      if (Peer* to = peer_of(frame.rank)) append_frame(to->out, {FrameKind::kAddress, rank, frame.payload});
      break;
    case FrameKind::kBeat:
      if (auto beat = parse_beat(frame.payload)) peer.beat = *beat;
      break;
    case FrameKind::kBroken:
      break_group(parse_error(frame.payload));
      break;
    case FrameKind::kLeave:
      peer.left = true;
      send_all({FrameKind::kLeave, rank, {}});
      break;
    default:
      break;
  }
}

void Hub::take_hello(Peer& peer, const Frame& frame) {
  auto hello = parse_hello(frame.payload);
  std::string problem;
  if (!hello) {
    problem = hello.error().message;
  } else if (hello->job_id != rendezvous_.job_id || hello->attempt != rendezvous_.attempt) {
    problem = fmt::format("another gang meets at {}:{}: job '{}' attempt {}, not job '{}' attempt {}",
                          rendezvous_.master_addr, rendezvous_.master_port, rendezvous_.job_id,
                          rendezvous_.attempt, hello->job_id, hello->attempt);
  } else if (hello->world_size != rendezvous_.world_size || hello->rank >= rendezvous_.world_size) {
    problem = fmt::format("{} has a world of {}, rank 0 one of {}", name_of(*hello), hello->world_size,
                          rendezvous_.world_size);
  } else if (Peer* other = peer_of(hello->rank); other != nullptr || peer.hello) {
    problem = fmt::format("two ranks say that they are {}", name_of(*hello));
  }
  if (!problem.empty()) {  // only to who asks: a stranger must not end the gang
    append_frame(peer.out, {FrameKind::kBroken, kNoRank, to_payload(Error{Code::kInvalidArgument, problem})});
    return;
  }
  peer.hello = std::move(*hello);
  const auto here =
      std::count_if(peers_.begin(), peers_.end(), [](const Peer& p) { return p.hello.has_value(); });
  if (here == rendezvous_.world_size) welcome_all();
}

void Hub::welcome_all() {
  welcomed_ = true;
  // Who came over loopback is on this host; what others reach it by is our end of their connections.
  std::string ours;
  for (const Peer& peer : peers_) {
    if (std::string a = address_of(peer.socket.get(), End::kOurs); ours.empty() || is_loopback(ours))
      ours = a;
  }
  Welcome welcome;
  std::map<std::string, int> memories;
  for (int rank = 0; rank < rendezvous_.world_size; ++rank) {
    const Hello& hello = *peer_of(rank)->hello;
    const int next = static_cast<int>(memories.size());
    welcome.places.push_back({hello.node, memories.try_emplace(hello.memory, next).first->second});
  }
  for (Peer& peer : peers_) {
    if (!peer.hello) continue;
    const std::string theirs = address_of(peer.socket.get(), End::kTheirs);
    welcome.address = is_loopback(theirs) ? ours : theirs;
    append_frame(peer.out, {FrameKind::kWelcome, peer.hello->rank, to_payload(welcome)});
  }
}

/// Silence, a deadline missed, ranks that disagree; and our own sign of life.
void Hub::look_around() {
  const int64_t now = now_ns();
  if (now >= next_beat_ns_) {
    next_beat_ns_ = now + kBeatNs;
    send_all({FrameKind::kBeat, kNoRank, {}});
  }
  for (Peer& peer : peers_) {
    if (now - peer.heard_ns > options_.silence_ns)
      lost(peer, fmt::format("has given no sign of life for {}", format_duration(now - peer.heard_ns)));
  }
  if (!welcomed_ && now > deadline_ns_ && !broken_) {
    std::vector<std::string> missing;
    for (int rank = 0; rank < rendezvous_.world_size; ++rank) {
      if (peer_of(rank) == nullptr) missing.push_back(std::to_string(rank));
    }
    break_group(
        {Code::kDeadlineExceeded,
         fmt::format("rank 0 waited {} at {}:{} for rank(s) {}", format_duration(options_.connect_timeout_ns),
                     rendezvous_.master_addr, rendezvous_.master_port, join(missing, ", "))});
  }
  const Peer* first = peer_of(0);
  if (!welcomed_ || first == nullptr || broken_) return;
  for (const Peer& peer : peers_) {
    if (!peer.hello || peer.beat.round != first->beat.round) continue;
    if (!(peer.beat == first->beat))
      return break_group(
          {Code::kInternal, fmt::format("the ranks disagree about the operation or its size: rank 0 and {}",
                                        name_of(*peer.hello))});
  }
}

void Hub::lost(Peer& peer, const std::string& how) {
  if (peer.hello && !peer.left) {
    break_group({Code::kUnavailable, fmt::format("{} {}{}", name_of(*peer.hello), how,
                                                 welcomed_ ? "" : " before all ranks had met")});
  }
  peer.socket = {};
}

/// Whoever is found first is named by all.
void Hub::break_group(const Error& error) {
  if (!std::exchange(broken_, true)) send_all({FrameKind::kBroken, kNoRank, to_payload(error)});
}

void Hub::send_all(const Frame& frame) {
  for (Peer& peer : peers_) {
    if (peer.hello) append_frame(peer.out, frame);
  }
}

void Hub::flush() {
  for (Peer& peer : peers_) {
    while (peer.socket && !peer.out.empty()) {
      const ssize_t sent = send(peer.socket.get(), peer.out.data(), peer.out.size(), MSG_NOSIGNAL);
      if (sent <= 0) break;  // full, or gone: read() finds out
      peer.out.erase(0, static_cast<size_t>(sent));
    }
  }
}

Hub::Peer* Hub::peer_of(int rank) {
  for (Peer& peer : peers_) {
    if (peer.hello && peer.hello->rank == rank) return &peer;
  }
  return nullptr;
}

}  // namespace th::collective
