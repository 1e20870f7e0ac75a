#include "control/notices.h"

#include <fmt/format.h>

#include "base/log.h"
#include "base/units.h"

namespace th::control {
namespace {

constexpr int64_t kTimeoutNs = 10 * kSecond;

bool takes_the_vm(cloud::NoticeKind kind) { return kind != cloud::NoticeKind::kFreeze; }

}  // namespace

void Notices::step() {
  if (!asking_ && core_.monotonic_ns() >= next_ask_ns_ && !core_.active_slices().empty()) ask();
  std::set<std::string> leaving;
  for (const cloud::Notice& notice : notices_) {
    if (takes_the_vm(notice.kind)) leaving.insert(notice.vm);
  }
  core_.set_leaving(std::move(leaving));
  for (const cloud::Notice& notice : notices_) take(notice);
}

void Notices::ask() {
  asking_ = true;
  core_.after_commit([this] {
    core_.offload([this]() -> std::function<void()> {
      auto events = core_.provider().events(kTimeoutNs);
      return [this, events] {
        asking_ = false;
        next_ask_ns_ = core_.monotonic_ns() + core_.provider().patience().list_every_ns;
        if (events) {
          notices_ = *events;
        } else {
          log_warn("the provider cannot say what is about to happen: {}", events.error().message);
        }
      };
    });
  });
}

void Notices::take(const cloud::Notice& notice) {
  const auto found = core_.state().vms.find(notice.vm);
  if (found == core_.state().vms.end()) return;
  const ledger::Vm& vm = found->second;
  if (vm.state != ledger::VmState::kUp && vm.state != ledger::VmState::kReady) return;
  const int64_t left_ns = std::max<int64_t>(0, notice.not_before_ns - core_.now_ns());
  const std::string what = fmt::format("{} of node {} in {}", cloud::notice_name(notice.kind), vm.id,
                                       format_duration(left_ns / kSecond * kSecond));
  if (told_.insert(notice.id).second) log_warn("the cloud gives notice: {} ({})", what, notice.detail);
  if (!takes_the_vm(notice.kind)) return;
  core_.suspect_host(vm.host);
  jobs_.evacuate(vm.id, "by the cloud: " + what, std::max(notice.not_before_ns, core_.now_ns()));
  if (!jobs_.runs_on(vm.id) && given_up_.insert(notice.id).second) give_up(notice);
}

/// Nothing of it is needed any more: it may come at once.
void Notices::give_up(const cloud::Notice& notice) {
  core_.after_commit([this, notice] {
    core_.offload([this, notice]() -> std::function<void()> {
      const Status told = core_.provider().acknowledge(notice.id, kTimeoutNs);
      return [this, notice, told] {
        if (!told) log_warn("notice {} could not be acknowledged: {}", notice.id, told.error().message);
        const auto vm = core_.state().vms.find(notice.vm);
        const bool there = vm != core_.state().vms.end() && vm->second.state != ledger::VmState::kDown &&
                           vm->second.state != ledger::VmState::kDeleted;
        if (there && !slices_.removing(notice.vm))
          slices_.node_down(notice.vm,
                            fmt::format("the cloud takes it away ({})", cloud::notice_name(notice.kind)));
      };
    });
  });
}

}  // namespace th::control
