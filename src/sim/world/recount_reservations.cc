// Hosts that are kept for some: nobody else is placed there, and they nowhere else.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "sim/world/recount.h"

namespace th::sim {
namespace {

bool overlap(int64_t start_a, int64_t end_a, int64_t start_b, int64_t end_b) {
  return start_a < end_b && start_b < end_a;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

}  // namespace

void Recount::on(const ledger::JobSubmitted& e) {
  std::string reservation;
  if (auto spec = parse_json(e.spec, "spec"); spec && e.slice.empty())
    reservation = get_string(*spec, "reservation", std::string()).value_or("");
  jobs_[e.job] = {e.slice, reservation, e.gpus, 0};
}

void Recount::on(const ledger::ReservationCreated& e) {
  for (const std::string& host : e.hosts) {
    if (!fleet_.find_host(host)) violation_(kBroken, "a host that does not exist is reserved: " + host);
    for (const auto& [name, other] : reservations_) {
      if (has(other.hosts, host) && overlap(e.start_ns, e.end_ns, other.start_ns, other.end_ns))
        violation_(kDoubleLease,
                   fmt::format("host {} is reserved by {} and by {}", host, name, e.reservation));
    }
    for (const std::string& id : live_) {
      const Lease& lease = leases_.at(id);
      const int64_t end_ns = std::max(lease.end_ns, now_ns_ + 1);  // overdue: it is still there
      if ((lease.hosts.count(host) || lease.adding.count(host)) &&
          overlap(e.start_ns, e.end_ns, lease.start_ns, end_ns)) {
        violation_(kDoubleLease,
                   fmt::format("host {} is reserved by {} and belongs to {}", host, e.reservation, id));
      }
    }
  }
  reservations_[e.reservation] = e;
}

/// From then on the host is in nobody else's reservation.
void Recount::check_reserved(const std::string& slice, const std::string& host, int64_t from_ns) {
  const Lease& lease = leases_.at(slice);
  for (const auto& [name, of] : reservations_) {
    if (name == lease.reservation || !has(of.hosts, host)) continue;
    if (overlap(of.start_ns, of.end_ns, from_ns, lease.end_ns))
      violation_(kDoubleLease, fmt::format("host {} is reserved by {} and given to {}", host, name, slice));
  }
}

/// A lease in a reservation is of somebody who may, on its hosts and in its time; a job that named one has no
/// other.
void Recount::check_inside(const std::string& slice, const std::string& user) {
  const Lease& lease = leases_.at(slice);
  const auto job = jobs_.find(lease.name);
  if (lease.implicit && job != jobs_.end() && job->second.reservation != lease.reservation) {
    violation_(kDoubleLease, fmt::format("{} was to run in reservation '{}' and got {} in '{}'", lease.name,
                                         job->second.reservation, slice, lease.reservation));
  }
  if (lease.reservation.empty()) return;
  ++num_reserved_;
  const auto found = reservations_.find(lease.reservation);
  if (found == reservations_.end())
    return violation_(kDoubleLease,
                      fmt::format("{} is in reservation {}, which is no more", slice, lease.reservation));
  const ledger::ReservationCreated& of = found->second;
  if (of.maintenance || !(has(of.accounts, lease.share.account) || has(of.users, user))) {
    violation_(kDoubleLease, fmt::format("{} of account {} is in reservation {}, which is not for it", slice,
                                         lease.share.account, of.reservation));
  }
  const bool in_time = of.start_ns <= lease.start_ns && lease.end_ns <= of.end_ns;
  const bool on_hosts =
      std::ranges::all_of(lease.hosts, [&](const auto& host) { return has(of.hosts, host.first); });
  if (!in_time || !on_hosts)
    violation_(kDoubleLease, fmt::format("{} leaves the time or the hosts of {}", slice, of.reservation));
}

}  // namespace th::sim
