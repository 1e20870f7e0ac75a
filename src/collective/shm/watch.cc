#include "collective/shm/watch.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <utility>

namespace th::collective {
namespace {

constexpr auto kHeartbeat = std::chrono::milliseconds(200);
constexpr int64_t kCheckPeersNs = 100 * kMillisecond;
constexpr int kSpins = 100;  // a few µs
// With more ranks than cores the peer needs this core; giving it up is cheaper than to sleep and be woken.
constexpr int kYields = 50;
constexpr int32_t kDisagree = -1;

/// The kernel waits on 32 bits: the lower half, in which a count changes. Shared between processes, so not
/// FUTEX_PRIVATE.
uint32_t* lower_half(Counter& counter) {
  static_assert(std::endian::native == std::endian::little);
  return reinterpret_cast<uint32_t*>(&counter.value);
}
void futex_wait(Counter& counter, uint64_t expected, int64_t timeout_ns) {
  timespec timeout{.tv_sec = timeout_ns / kSecond, .tv_nsec = timeout_ns % kSecond};
  syscall(SYS_futex, lower_half(counter), FUTEX_WAIT, static_cast<uint32_t>(expected), &timeout, nullptr, 0);
}
void futex_wake_all(Counter& counter) {
  syscall(SYS_futex, lower_half(counter), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

bool reached(const Counter& counter, uint64_t value) {
  return counter.value.load(std::memory_order_acquire) >= value;
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Watch::Watch(const Segment& segment, int rank, ShmOptions options)
    : segment_(segment),
      rank_(rank),
      world_(static_cast<int>(segment.header().world_size)),
      options_(std::move(options)),
      heart_([this](std::stop_token stop) { beat(stop); }) {}

Watch::~Watch() {
  heart_.request_stop();
  heart_.join();
  segment_.peer(rank_).state = static_cast<uint32_t>(PeerState::kLeft);
}

void Watch::beat(std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  while (!stop.stop_requested()) {
    segment_.peer(rank_).heartbeat_ns = monotonic_now_ns();
    wake.wait_for(lock, stop, kHeartbeat, [] { return false; });
  }
}

void Watch::raise(Counter& counter, uint64_t value) {
  counter.value.store(value);  // before the look at the sleepers, who do both in the other order
  if (counter.sleepers.load() != 0) futex_wake_all(counter);
}

Status Watch::wait(int peer, Counter& counter, uint64_t value) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (reached(counter, value)) return {};
    pause();
  }
  for (int yield = 0; yield < kYields; ++yield) {
    sched_yield();
    if (reached(counter, value)) return {};
  }
  counter.sleepers.fetch_add(1);
  Status status = sleep(peer, counter, value);
  counter.sleepers.fetch_sub(1);
  return status;
}

Status Watch::sleep(int peer, Counter& counter, uint64_t value) {
  uint64_t next_check_ns = monotonic_now_ns() + kCheckPeersNs;
  for (;;) {
    const uint64_t now = counter.value.load();
    if (reached(counter, value)) return {};
    futex_wait(counter, now, kCheckPeersNs);
    if (monotonic_now_ns() < next_check_ns) continue;
    next_check_ns = monotonic_now_ns() + kCheckPeersNs;
    TH_RETURN_IF_ERROR(look_around(peer, counter, value));
  }
}

std::string Watch::problem_of(int peer) const {
  return peer_problem(segment_.peer(peer), name_of(options_, peer), options_.silence_ns);
}

Status Watch::check() const {
  const int32_t broken = segment_.header().broken.load(std::memory_order_relaxed);
  if (broken == 0) return {};
  if (broken == kDisagree) return fail(Code::kInternal, "the ranks disagree about the operation or its size");
  const int suspect = broken - 1;
  const std::string problem = suspect == rank_ ? "" : problem_of(suspect);
  return fail(Code::kUnavailable,
              problem.empty() ? name_of(options_, suspect) + " was given up by the others" : problem);
}

/// Whoever is first to find a peer dead tells the others which, so that all name the same rank.
Status Watch::look_around(int waited_for, const Counter& counter, uint64_t value) {
  for (int peer = 0; peer < world_; ++peer) {
    TH_RETURN_IF_ERROR(check());
    if (peer == rank_ || problem_of(peer).empty()) continue;
    // A peer may be done, and have left, when others still wait for each other.
    const bool left = segment_.peer(peer).state.load() == static_cast<uint32_t>(PeerState::kLeft);
    if (left && (peer != waited_for || reached(counter, value))) continue;
    int32_t none = 0;
    segment_.header().broken.compare_exchange_strong(none, peer + 1);
  }
  return check();
}

Status Watch::disagree() {
  int32_t none = 0;
  segment_.header().broken.compare_exchange_strong(none, kDisagree);
  return check();
}

}  // namespace th::collective
