#include "reserve/preempt.h"

#include <algorithm>
#include <bit>
#include <tuple>

#include "reserve/explain.h"

namespace th::reserve::detail {
namespace {

struct Candidate {
  const Running* running = nullptr;
  int64_t qos_priority = 0;
  double lost_gpu_s = 0;
  bool by_qos = false;
};

std::vector<Candidate> candidates(const RoomAsk& ask) {
  const QueuePolicy& policy = ask.input.policy;
  const Qos* own = policy.find_qos(ask.pending.who.qos);
  std::vector<Candidate> out;
  for (const Running& running : ask.input.running) {
    auto has_notice = [&](const Preemption& given) { return given.id == running.claim.id; };
    if (!running.preemptible || running.ends_ns || std::ranges::any_of(ask.given, has_notice)) continue;
    const Qos* qos = policy.find_qos(running.who.qos);
    if (qos && ask.input.now_ns - running.started_ns < qos->min_run_ns) continue;
    const int64_t gpus = gpus_in(running.claim);
    Candidate candidate{&running, qos ? qos->priority : 0};
    const int64_t saved_ns = std::max(running.started_ns, running.saved_ns);
    candidate.lost_gpu_s = static_cast<double>(gpus) * static_cast<double>(ask.input.now_ns - saved_ns) / 1e9;
    candidate.by_qos = own && std::ranges::find(own->preempts, running.who.qos) != own->preempts.end() &&
                       (!running.comes_back || priority_of(running.who, gpus, policy, ask.accounts,
                                                           ask.fleet_gpus, ask.input.now_ns) < ask.priority);
    out.push_back(candidate);
  }
  std::ranges::stable_sort(out, [](const Candidate& a, const Candidate& b) {
    return std::tuple(a.qos_priority, a.lost_gpu_s, -a.running->started_ns) <
           std::tuple(b.qos_priority, b.lost_gpu_s, -b.running->started_ns);
  });
  return out;
}

/// What may be stopped: of borrowed quota only as long as it is borrowed, with all before it gone.
std::vector<const Running*> may_stop(const RoomAsk& ask) {
  Accounts accounts = ask.accounts;
  std::vector<const Running*> out;
  for (const Candidate& candidate : candidates(ask)) {
    const Running& running = *candidate.running;
    const Use want{ask.pending.request.name, ask.pending.who.account, ask.pending.who.qos,
                   ask.pending.request.gpus, ask.input.now_ns,        ask.input.now_ns + 1};
    const Use lent{running.claim.id,       running.who.account,    running.who.qos,
                   gpus_in(running.claim), running.claim.start_ns, running.claim.end_ns};
    const bool reclaims =
        !ask.input.snapshot.is_slice() && accounts.may_reclaim(want, lent, ask.input.now_ns);
    if (!candidate.by_qos && !reclaims) continue;
    accounts.remove(running.claim.id);
    out.push_back(&running);
  }
  return out;
}

}  // namespace

int64_t gpus_in(const Claim& claim) {
  int64_t gpus = 0;
  for (const HostGpus& part : claim.hosts) gpus += std::popcount(part.gpus);
  return gpus;
}

int64_t end_of_notice(const QueueInput& input, const Running& running) {
  const Qos* qos = input.policy.find_qos(running.who.qos);
  return input.now_ns + std::max<int64_t>(1, qos ? qos->grace_ns : 0);
}

std::vector<const Running*> choose_victims(const RoomAsk& ask) {
  std::vector<const Running*> chosen = may_stop(ask);
  auto enough = [&](const std::vector<const Running*>& gone) {
    Snapshot snapshot = ask.snapshot;
    Accounts accounts = ask.accounts;
    Pending pending = ask.pending;
    int64_t& start_ns = pending.request.start_ns;
    for (const Running* running : gone) {
      start_ns = std::max(start_ns, end_of_notice(ask.input, *running));
      // Else its quota is free then, and its hosts are its reservation's.
      if (running->reservation.empty()) snapshot = snapshot.without_claim(running->claim);
      accounts.remove(running->claim.id);
    }
    auto plan = decide_for(snapshot, pending, accounts, ask.input.policy, ask.input.end_by_ns, false,
                           ask.input.now_ns);
    return plan && plan->start_ns <= start_ns;
  };
  if (chosen.empty() || !enough(chosen)) return {};
  size_t few = 0, many = chosen.size();  // the first `few` are not enough, the first `many` are
  while (many - few > 1) {
    const size_t middle = few + (many - few) / 2;
    (enough({chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(middle)}) ? many : few) = middle;
  }
  chosen.resize(many);
  for (size_t before = 0; before != chosen.size();) {  // with fewer it starts earlier, when others may do
    before = chosen.size();
    for (size_t i = chosen.size(); i-- > 0 && chosen.size() > 1;) {
      std::vector<const Running*> fewer = chosen;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
      if (enough(fewer)) chosen = std::move(fewer);
    }
  }
  return chosen;
}

}  // namespace th::reserve::detail
