#include "control/end_vm.h"

namespace th::control {
namespace {

void remove_vm(Core& core, const std::string& vm, std::function<void(const Status&)> done) {
  core.after_commit([&core, vm, done = std::move(done)] {
    core.offload([&core, vm, done]() -> std::function<void()> {
      const Status removed = core.provider().remove(vm, core.provider().patience().remove_ns);
      return [done, removed] { done(removed); };
    });
  });
}

}  // namespace

void end_vm(Core& core, const std::string& vm, std::function<void(const Status&)> done) {
  core.after_commit([&core, vm, done = std::move(done)] {
    core.offload([&core, vm, done]() -> std::function<void()> {
      const auto ended = core.provider().stop(vm, core.provider().patience().remove_ns);
      return [&core, vm, done, ended] {
        if (!ended && ended.error().code != Code::kNotFound) return done(fail(ended.error()));
        if (ended && ended->created_ns > 0 && core.state().vms.count(vm) > 0)
          core.stage(ledger::VmBilled{vm, ended->created_ns, ended->ended_ns});
        remove_vm(core, vm, done);
      };
    });
  });
}

}  // namespace th::control
