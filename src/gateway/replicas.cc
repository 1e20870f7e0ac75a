#include "gateway/replicas.h"

#include <tuple>

#include "base/result.h"
#include "base/units.h"

namespace th::gateway {

namespace {
constexpr int64_t kAvoidAfterFailureNs = kSecond;
constexpr size_t kMaxIdleStates = 1024;  // replicas come and go with their ports
}  // namespace

std::optional<Replica> ReplicaPool::acquire(const std::vector<Replica>& replicas,
                                            const std::set<std::string>& tried, int64_t now_ns) {
  std::lock_guard lock(mutex_);
  auto rank = [&](const Replica& replica) {
    const State& state = states_[replica.url];
    return std::tuple(state.failed_until_ns > now_ns, state.outstanding, state.chosen);
  };
  const Replica* best = nullptr;
  for (const Replica& replica : replicas) {
    if (tried.contains(replica.url)) continue;
    if (best == nullptr || rank(replica) < rank(*best)) best = &replica;
  }
  if (best == nullptr) return std::nullopt;
  if (states_.size() > kMaxIdleStates) {
    std::erase_if(states_, [&](const auto& entry) {
      return entry.second.outstanding == 0 && entry.first != best->url;
    });
  }
  State& state = states_[best->url];
  ++state.outstanding;
  state.chosen = ++turn_;
  return *best;
}

void ReplicaPool::release(const Replica& replica, bool failed, int64_t now_ns) {
  std::lock_guard lock(mutex_);
  State& state = states_[replica.url];
  TH_CHECK(state.outstanding > 0);
  --state.outstanding;
  state.failed_until_ns = failed ? now_ns + kAvoidAfterFailureNs : 0;
}

int64_t ReplicaPool::outstanding(const Replica& replica) const {
  std::lock_guard lock(mutex_);
  auto found = states_.find(replica.url);
  return found == states_.end() ? 0 : found->second.outstanding;
}

}  // namespace th::gateway
