#include "cloud/azure/sets.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace th::cloud::azure {
namespace {

constexpr const char* kNever = "none";  // the VM has none and will have none

const Instance* find_instance(const SetView& view, std::string_view id) {
  const auto found = std::ranges::find(view.instances, id, &Instance::id);
  return found == view.instances.end() ? nullptr : &*found;
}

void describe(VmState& state, const Instance& instance, const AzureProviderOptions& options,
              const std::string& set) {
  state.created_ns = instance.created_ns;
  state.node_token_sha256 = sha256_hex(node_token(set_secret(options, set), instance.name));
  state.detail = fmt::format("{}, {}{}", instance.name, instance.provisioning_state,
                             instance.power.empty() ? "" : ", " + instance.power);
  if (instance.power == "deallocated" || instance.power == "deallocating") {
    state.phase = VmPhase::kDead;
    if (instance.power == "deallocated") state.ended_ns = std::max(instance.changed_ns, instance.created_ns);
  } else if (instance.provisioning_state == "Failed") {
    state.phase = VmPhase::kDead;
    if (!instance.fault_code.empty()) state.detail += ", " + instance.fault_code;
    if (instance.power.empty()) state.ended_ns = instance.created_ns;  // never had a host, so never billed
  } else if (instance.power == "running" && instance.provisioning_state == "Succeeded") {
    state.phase = VmPhase::kRunning;
  }
}

}  // namespace

void sort_instances(std::vector<Instance>& instances) {
  std::ranges::sort(instances, [](const Instance& a, const Instance& b) {
    return std::pair(a.id.size(), a.id) < std::pair(b.id.size(), b.id);
  });
}

std::string instance_of(const SetView& view, size_t i) {
  if (view.book.instances) return (*view.book.instances)[i];
  return i < view.instances.size() ? view.instances[i].id : std::string();
}

std::vector<const Instance*> strays(const SetView& view) {
  std::vector<const Instance*> out;
  for (size_t i = 0; i < view.instances.size(); ++i) {
    const std::string& id = view.instances[i].id;
    const bool known =
        view.book.instances ? std::ranges::count(*view.book.instances, id) > 0 : i < view.book.vms.size();
    if (!known) out.push_back(&view.instances[i]);
  }
  return out;
}

std::vector<VmState> states_of(const SetView& view, const AzureProviderOptions& options) {
  std::vector<VmState> out;
  for (size_t i = 0; i < view.book.vms.size(); ++i) {
    const std::string id = instance_of(view, i);
    if (id == "-") continue;
    VmState state;
    state.vm = view.book.vms[i], state.host = view.book.hosts[i], state.client_token = view.book.client_token;
    if (const Instance* instance = find_instance(view, id)) {
      describe(state, *instance, options, view.set.name);
    } else if (view.book.instances || view.set.settled()) {
      state.phase = VmPhase::kDead;
      state.detail = fmt::format("scale set {} has no such instance", view.set.name);
    } else {
      state.detail = fmt::format("scale set {} is being made", view.set.name);
    }
    out.push_back(std::move(state));
  }
  for (const Instance* instance : strays(view)) {
    VmState state;
    state.vm = fmt::format("{}_{}", view.set.name, instance->id), state.client_token = view.book.client_token;
    describe(state, *instance, options, view.set.name);
    out.push_back(std::move(state));
  }
  if (out.empty()) {
    VmState state;
    state.vm = view.set.name, state.client_token = view.book.client_token, state.phase = VmPhase::kDead;
    state.detail = "a scale set without VMs";
    out.push_back(std::move(state));
  }
  return out;
}

Book with_instances(const SetView& view) {
  Book book = view.book;
  std::vector<std::string> ids;
  for (size_t i = 0; i < book.vms.size(); ++i) {
    std::string id = instance_of(view, i);
    ids.push_back(id.empty() ? kNever : std::move(id));
  }
  book.instances = std::move(ids);
  return book;
}

bool is_spent(const SetView& view) {
  if (!view.instances.empty()) return false;
  return view.book.instances &&
         std::ranges::all_of(*view.book.instances, [](const std::string& id) { return id == "-"; });
}

}  // namespace th::cloud::azure
