#include "collective/gloo/meeting.h"

#include <fmt/format.h>
#include <poll.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/env.h"
#include "collective/gloo/hub.h"
#include "collective/gloo/sockets.h"

namespace th::collective {
namespace {

constexpr int kPollMs = 50;
constexpr int64_t kBeatNs = 200 * kMillisecond;
constexpr int64_t kLeftGraceNs = 3 * kSecond;  // what a rank that left has sent may still be on its way
constexpr int64_t kPatienceNs = 2 * kSecond;   // the hub's verdict comes first
constexpr auto kRetry = std::chrono::milliseconds(20);
constexpr size_t kMaxFrameBytes = size_t{64} << 20;

int64_t now_ns() { return Env::real().monotonic_ns(); }

}  // namespace

/// Our connection to the hub, and a thread that reads it and gives signs of life.
class Meeting::Impl {
 public:
  Impl(std::unique_ptr<Hub> hub, UniqueFd socket, const Rendezvous& rendezvous, const MeetingOptions& options)
      : rendezvous_(rendezvous), options_(options), hub_(std::move(hub)), socket_(std::move(socket)) {}

  void start(const Hello& hello) {
    send({FrameKind::kHello, hello.rank, to_payload(hello)});
    thread_ = std::jthread([this](std::stop_token stop) { run(stop); });
  }

  void send(const Frame& frame) {
    std::string bytes;
    append_frame(bytes, frame);
    const std::lock_guard lock(write_);
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t sent = ::send(socket_.get(), bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (sent > 0) {
        at += static_cast<size_t>(sent);
        continue;
      }
      pollfd wanted{.fd = socket_.get(), .events = POLLOUT, .revents = 0};
      if (errno != EAGAIN || poll(&wanted, 1, 1000) != 1) return;  // the reader finds out
    }
  }

  /// Waits until `done` or the group is broken.
  template <class Done>
  Status wait(int64_t timeout_ns, Done done) {
    std::unique_lock lock(state_);
    changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [&] { return broken_ || done(); });
    if (broken_) return fail(*broken_);
    if (!done()) return fail(Code::kDeadlineExceeded, "");
    return {};
  }

  Result<Welcome> welcome() {
    Status waited = wait(options_.connect_timeout_ns + kPatienceNs, [this] { return welcome_.has_value(); });
    if (waited) return *welcome_;
    if (waited.error().code == Code::kDeadlineExceeded && waited.error().message.empty())
      return fail(Code::kDeadlineExceeded, fmt::format("rank {} heard nothing from {}:{}", rendezvous_.rank,
                                                       rendezvous_.master_addr, rendezvous_.master_port));
    return fail(waited.error());
  }

  Result<std::map<int, std::string>> addresses(size_t count) {
    TH_RETURN_IF_ERROR(wait(options_.connect_timeout_ns, [&] { return addresses_.size() >= count; }));
    const std::lock_guard lock(state_);
    return addresses_;
  }

  void enter(const Beat& beat) {
    const std::lock_guard lock(state_);
    beat_ = beat;
  }

  void on_broken(std::function<void()> call) {
    const std::lock_guard lock(state_);
    on_broken_ = std::move(call);
    if (broken_ && on_broken_) on_broken_();
  }

  std::optional<Error> broken(int64_t timeout_ns) {
    std::unique_lock lock(state_);
    changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [this] { return broken_.has_value(); });
    return broken_;
  }

  void leave() {
    if (leaving_.exchange(true)) return;
    const bool is_whole = !broken(0);
    send({FrameKind::kLeave, rendezvous_.rank, {}});
    if (is_whole)
      (void)wait(options_.leave_timeout_ns, [this] { return left_ == rendezvous_.world_size || is_closed_; });
    on_broken({});
    thread_ = {};
    hub_.reset();
  }

 private:
  void run(std::stop_token stop) {
    int64_t heard_ns = now_ns(), next_beat_ns = 0;
    FrameReader reader(kMaxFrameBytes);
    while (!stop.stop_requested()) {
      pollfd wanted{.fd = socket_.get(), .events = POLLIN, .revents = 0};
      if (poll(&wanted, 1, kPollMs) > 0) {
        char buffer[16 << 10];
        const ssize_t got = recv(socket_.get(), buffer, sizeof(buffer), 0);
        if (got <= 0 && !(got < 0 && (errno == EAGAIN || errno == EINTR))) return closed();
        if (got > 0) {
          heard_ns = now_ns();
          reader.feed({buffer, static_cast<size_t>(got)});
        }
        for (;;) {
          auto frame = reader.next();
          if (!frame) return closed();
          if (!*frame) break;
          take(**frame);
        }
      }
      const int64_t now = now_ns();
      if (now >= next_beat_ns) {
        next_beat_ns = now + kBeatNs;
        send_beat();
      }
      if (now - heard_ns > options_.silence_ns)
        set_broken({Code::kUnavailable, fmt::format("{} has given no sign of life for {}", name_of(0),
                                                    format_duration(now - heard_ns))});
      look_who_left(now);
    }
  }

  void send_beat() {
    std::string payload;
    {
      const std::lock_guard lock(state_);
      payload = to_payload(beat_);
    }
    send({FrameKind::kBeat, rendezvous_.rank, std::move(payload)});
  }

  void take(const Frame& frame) {
    if (frame.kind == FrameKind::kBroken) return set_broken(parse_error(frame.payload));
    const std::lock_guard lock(state_);
    if (frame.kind == FrameKind::kWelcome) {
      if (auto welcome = parse_welcome(frame.payload)) welcome_ = std::move(*welcome);
    } else if (frame.kind == FrameKind::kAddress) {
      addresses_[frame.rank] = frame.payload;
    } else if (frame.kind == FrameKind::kLeave) {
      ++left_;
      if (first_left_ns_ == 0 && frame.rank != rendezvous_.rank) {
        first_left_ns_ = now_ns();
        first_left_ = frame.rank;
      }
    }
    changed_.notify_all();
  }

  void look_who_left(int64_t now) {
    if (first_left_ns_ == 0 || leaving_ || now - first_left_ns_ < kLeftGraceNs) return;
    set_broken({Code::kUnavailable, name_of(first_left_) + " left the group"});
  }

  void closed() {
    {
      const std::lock_guard lock(state_);
      is_closed_ = true;
      changed_.notify_all();
    }
    if (!leaving_)
      set_broken({Code::kUnavailable, name_of(0) + (first_left_ns_ != 0 ? " left the group" : " died")});
  }

  void set_broken(Error error) {
    const std::lock_guard lock(state_);
    if (broken_) return;
    broken_ = std::move(error);
    if (on_broken_) on_broken_();
    changed_.notify_all();
  }

  std::string name_of(int rank) {
    const std::lock_guard lock(state_);
    return welcome_ && static_cast<size_t>(rank) < welcome_->places.size()
               ? fmt::format("rank {} on node {}", rank, welcome_->places[rank].node)
               : fmt::format("rank {} at {}", rank, rendezvous_.master_addr);
  }

  Rendezvous rendezvous_;
  MeetingOptions options_;
  std::unique_ptr<Hub> hub_;
  UniqueFd socket_;
  std::mutex write_, state_;
  std::condition_variable changed_;
  Beat beat_;
  std::optional<Welcome> welcome_;
  std::map<int, std::string> addresses_;
  std::optional<Error> broken_;
  std::function<void()> on_broken_;
  int left_ = 0;
  int first_left_ = 0;         // the thread's own
  int64_t first_left_ns_ = 0;  // the thread's own
  bool is_closed_ = false;
  std::atomic<bool> leaving_ = false;
  std::jthread thread_;  // last: ends first
};

Meeting::Meeting(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Meeting::~Meeting() { leave(); }

Result<std::unique_ptr<Meeting>> Meeting::join(const Rendezvous& rendezvous, const std::string& memory,
                                               const MeetingOptions& options) {
  if (rendezvous.master_port == 0)
    return fail(
        Code::kInvalidArgument,
        "environment variable MASTER_PORT is missing; ranks on several nodes need a free port of rank 0's");
  std::unique_ptr<Hub> hub;
  if (rendezvous.rank == 0) {
    TH_TRY(hub, Hub::open(rendezvous, options));
  }
  const int64_t deadline_ns = now_ns() + options.connect_timeout_ns;
  UniqueFd socket;
  while (!socket) {
    TH_TRY(socket, connect_to(rendezvous.master_addr, rendezvous.master_port));
    if (socket) break;
    if (now_ns() > deadline_ns)
      return fail(Code::kDeadlineExceeded,
                  fmt::format("rank {} waited {} for rank 0: nobody answers at {}:{}, where it has to run",
                              rendezvous.rank, format_duration(options.connect_timeout_ns),
                              rendezvous.master_addr, rendezvous.master_port));
    std::this_thread::sleep_for(kRetry);
  }
  std::unique_ptr<Meeting> meeting(
      new Meeting(std::make_unique<Impl>(std::move(hub), std::move(socket), rendezvous, options)));
  meeting->rank_ = rendezvous.rank;
  meeting->impl_->start({rendezvous.rank, rendezvous.world_size, rendezvous.job_id, rendezvous.attempt,
                         rendezvous.node, memory});
  TH_TRY(meeting->welcome_, meeting->impl_->welcome());
  if (meeting->welcome_.places.size() != static_cast<size_t>(rendezvous.world_size))
    return fail(Code::kInternal, "the meeting sent a list of another size");
  return meeting;
}

std::string Meeting::name_of(int rank) const {
  return fmt::format("rank {} on node {}", rank, welcome_.places[rank].node);
}

Result<std::map<int, std::string>> Meeting::swap(const std::map<int, std::string>& texts) {
  for (const auto& [rank, text] : texts) impl_->send({FrameKind::kAddress, rank, text});
  return impl_->addresses(texts.size());
}

void Meeting::enter(const Beat& beat) { impl_->enter(beat); }
void Meeting::on_broken(std::function<void()> call) { impl_->on_broken(std::move(call)); }
std::optional<Error> Meeting::broken(int64_t timeout_ns) { return impl_->broken(timeout_ns); }
void Meeting::give_up(const std::string& why) {
  impl_->send({FrameKind::kBroken, rank_, to_payload(Error{Code::kUnavailable, why})});
}
void Meeting::leave() { impl_->leave(); }

}  // namespace th::collective
