#include "cloud/azure/provider.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/env.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "cloud/azure/arm.h"
#include "cloud/azure/notices.h"
#include "cloud/azure/quotes.h"
#include "cloud/azure/requests.h"
#include "cloud/azure/reservations.h"
#include "cloud/azure/sets.h"

namespace th::cloud {
namespace {

using namespace azure;

constexpr int64_t kLookNs = 5 * kSecond;  // between looks at a set that is being made

class AzureProvider final : public Provider {
 public:
  AzureProvider(AzureProviderOptions options, AzureWorld world)
      : options_(std::move(options)), world_(std::move(world)), arm_(options_, world_) {}

  std::string_view kind() const override { return "azure"; }

  Status check_series(std::string_view series) const override {
    TH_RETURN_IF_ERROR(find_size(series));
    return {};
  }

  Patience patience() const override {
    return {.create_ns = 20 * kMinute,
            .remove_ns = 15 * kMinute,
            .list_ns = 2 * kMinute,
            .boot_ns = 30 * kMinute,
            .first_word_ns = 10 * kMinute,
            .list_every_ns = 15 * kSecond};  // Azure allows some thousand reads an hour
  }
  void interrupt() override { arm_.interrupt(); }

  Result<Quote> quote(const QuoteVms& request, int64_t timeout_ns) override {
    return quote_vms(arm_, options_, request, deadline(timeout_ns));
  }

  Result<std::vector<VmState>> create(const CreateVms& request, int64_t timeout_ns) override;
  Result<VmState> describe(std::string_view vm, int64_t timeout_ns) override;
  Result<std::vector<VmState>> list(int64_t timeout_ns) override;
  Result<VmState> stop(std::string_view vm, int64_t timeout_ns) override;
  Status remove(std::string_view vm, int64_t timeout_ns) override;
  Result<std::vector<Notice>> events(int64_t timeout_ns) override { return notices(deadline(timeout_ns)); }
  Status acknowledge(std::string_view id, int64_t timeout_ns) override {
    const int64_t deadline_ns = deadline(timeout_ns);
    TH_TRY(const auto now, notices(deadline_ns));
    return ready_.add(now, id) ? start_event(arm_, options_, id, deadline_ns) : Status();
  }

  Result<std::string> reserve(const ReserveVms& request, int64_t timeout_ns) override {
    return reserve_block(arm_, options_, request, deadline(timeout_ns));
  }
  Result<std::vector<std::string>> list_reservations(int64_t timeout_ns) override {
    return list_blocks(arm_, options_, deadline(timeout_ns));
  }
  Status cancel_reservation(std::string_view id, int64_t timeout_ns) override {
    return cancel_block(arm_, options_, id, deadline(timeout_ns));
  }

 private:
  struct Place {
    SetView view;
    std::optional<size_t> index;  // in the book; none: a stray
    std::string instance;         // its id; "" or "none" when there is none
  };

  int64_t deadline(int64_t timeout_ns) const { return world_.unix_ns() + timeout_ns; }
  std::string set_url(std::string_view set, std::string_view below = {}) const {
    return compute_url(options_, fmt::format("virtualMachineScaleSets/{}{}", set, below));
  }

  Status check_free(const CreateVms& request, int64_t deadline_ns);
  struct Made {
    std::vector<VmState> states;
    std::optional<Error> broken;  // it was made in part and will not be more
  };
  Result<Made> make_group(const CreateVms& request, const std::vector<VmSpec>& vms, size_t number,
                          int64_t deadline_ns);
  Status check_made(const SetView& view) const;
  void roll_back(const CreateVms& request, size_t failed, int64_t deadline_ns);
  Status give_up(const SetView& view, int64_t deadline_ns);

  Result<std::vector<Notice>> notices(int64_t deadline_ns) {
    TH_TRY(const auto events, ask_events(arm_, options_, deadline_ns));
    if (events.empty()) return std::vector<Notice>();
    TH_TRY(const auto sets, our_sets(deadline_ns));
    return notices_of(events, sets);
  }
  Result<std::vector<ScaleSet>> our_sets(int64_t deadline_ns);
  Result<SetView> look(ScaleSet set, int64_t deadline_ns);
  Result<SetView> view(const std::string& set, int64_t deadline_ns);
  Result<SetView> settled(const std::string& set, int64_t deadline_ns);
  Result<Place> find(std::string_view vm, int64_t deadline_ns);
  Result<SetView> with_book(const std::string& set, int64_t deadline_ns);
  Result<Place> find_settled(std::string_view vm, int64_t deadline_ns);
  Result<VmState> state_at(const Place& place, std::string_view vm) const;
  Status deallocate(const std::string& set, const Json& instances, int64_t deadline_ns);
  Status write(const std::string& set, const Book& book, int64_t deadline_ns);
  Status forget(const std::string& set, std::optional<size_t> index, int64_t deadline_ns);

  const AzureProviderOptions options_;
  const AzureWorld world_;
  Arm arm_;
  Readiness ready_;
  std::mutex books_;  // tags are read, changed and written back
};

/// No VM of this name may be another request's.
Status AzureProvider::check_free(const CreateVms& request, int64_t deadline_ns) {
  std::set<std::string> wanted;
  for (const VmSpec& spec : request.vms) wanted.insert(spec.vm);
  TH_TRY(const auto sets, our_sets(deadline_ns));
  for (const ScaleSet& set : sets) {
    const Book book = *book_of(set.tags);
    if (book.client_token == request.client_token) continue;
    for (size_t i = 0; i < book.vms.size(); ++i) {
      const bool gone = book.instances && (*book.instances)[i] == "-";
      if (!gone && wanted.count(book.vms[i]))
        return fail(Code::kAlreadyExists,
                    fmt::format("VM '{}' exists already, made by another request", book.vms[i]));
    }
  }
  return {};
}

Result<std::vector<VmState>> AzureProvider::create(const CreateVms& request, int64_t timeout_ns) {
  TH_RETURN_IF_ERROR(check_request(request));
  const int64_t end_ns = deadline(timeout_ns), making_ns = end_ns - timeout_ns / 4;
  TH_RETURN_IF_ERROR(check_free(request, making_ns));
  std::vector<VmState> states;
  for (size_t first = 0, group = 0; first < request.vms.size(); first += kMaxGroupVms, ++group) {
    const auto begin = request.vms.begin() + static_cast<ptrdiff_t>(first);
    const std::vector<VmSpec> vms(
        begin, begin + static_cast<ptrdiff_t>(std::min(kMaxGroupVms, request.vms.size() - first)));
    auto made = make_group(request, vms, group, making_ns);
    if (made && !made->broken) {
      states.insert(states.end(), made->states.begin(), made->states.end());
      continue;
    }
    const Error error = made ? *made->broken : made.error();
    // What the deadline ended may still succeed, and goes on with the same token.
    const bool open = error.code == Code::kDeadlineExceeded || error.code == Code::kUnavailable;
    if (made || !open) roll_back(request, group, end_ns);
    return fail(error);
  }
  return states;
}

Result<AzureProvider::Made> AzureProvider::make_group(const CreateVms& request,
                                                      const std::vector<VmSpec>& vms, size_t number,
                                                      int64_t deadline_ns) {
  const std::string name = set_name(options_.cluster, request.client_token, number);
  Book book{options_.cluster, request.client_token, {}, {}, {}};
  for (const VmSpec& spec : vms) book.vms.push_back(spec.vm), book.hosts.push_back(spec.host);
  TH_TRY(const auto tags, tags_of(book));
  TH_TRY(const Size size, find_size(vms[0].series));
  const auto seen = view(name, deadline_ns);
  if (!seen && seen.error().code != Code::kNotFound) return fail(seen.error());
  if (!seen) {
    Ask ask{fmt::format("creating {} VMs of {} in {}", vms.size(), size.name, options_.region), "PUT",
            set_url(name), dump_json(set_body(options_, size, request, name, tags, vms.size()))};
    ask.only_new = true, ask.spot = request.spot;
    const Status made = arm_.carry_out(ask, deadline_ns);
    // It exists: an earlier try made it, whose answer was lost.
    if (!made && made.error().code != Code::kFailedPrecondition) return fail(made.error());
  }
  TH_TRY(SetView now, settled(name, deadline_ns));
  if (now.book.vms != book.vms)
    return fail(Code::kAlreadyExists, "the client token of this request was used for other VMs");
  if (!now.book.instances) {
    if (const Status whole = check_made(now); !whole) return Made{{}, whole.error()};
    TH_TRY(now, with_book(name, deadline_ns));
  }
  if (std::ranges::count(*now.book.instances, "-") > 0)
    return fail(Code::kFailedPrecondition, "a VM of this request was removed; ask with another client token");
  std::vector<VmState> states = states_of(now, options_);
  states.resize(vms.size());  // without strays
  return Made{std::move(states), {}};
}

/// All of it, or why not.
Status AzureProvider::check_made(const SetView& view) const {
  const std::string what = "creating VMs in scale set " + view.set.name;
  for (const Instance& instance : view.instances) {
    if (instance.provisioning_state == "Failed")
      return fail(error_of_fault(0, {instance.fault_code, "instance " + instance.name + " failed"}, what,
                                 view.set.spot));
  }
  if (view.set.provisioning_state != "Succeeded" || view.instances.size() < view.book.vms.size()) {
    return fail(error_of_fault(
        0,
        {"AllocationFailed", fmt::format("{} of {} were made", view.instances.size(), view.book.vms.size())},
        what));
  }
  return {};
}

/// Of the groups up to the one that failed. One that stood before is not this call's to end.
void AzureProvider::roll_back(const CreateVms& request, size_t failed, int64_t deadline_ns) {
  for (size_t i = failed + 1; i-- > 0;) {
    const auto now = settled(set_name(options_.cluster, request.client_token, i), deadline_ns);
    if (!now && now.error().code == Code::kNotFound) continue;
    if (now && i == failed && now->book.instances) return;
    const Status ended = now ? give_up(*now, deadline_ns) : fail(now.error());
    if (!ended) log_warn("VMs that could not all be made are not ended yet: {}", ended.error().message);
  }
}

/// Ends what was begun. The set stays, with its VMs as dead, until they are removed: its name must not come
/// free while the token may be used again, since a deletion that arrives late would hit what was made after
/// it.
Status AzureProvider::give_up(const SetView& view, int64_t deadline_ns) {
  const bool billed =
      std::ranges::any_of(view.instances, [](const Instance& one) { return !one.power.empty(); });
  if (billed) TH_RETURN_IF_ERROR(deallocate(view.set.name, Json::object(), deadline_ns));
  TH_RETURN_IF_ERROR(with_book(view.set.name, deadline_ns));
  return {};
}

Result<std::vector<ScaleSet>> AzureProvider::our_sets(int64_t deadline_ns) {
  TH_TRY(auto sets, arm_.list({"listing scale sets", "GET", compute_url(options_, "virtualMachineScaleSets")},
                              read_sets, deadline_ns));
  std::erase_if(sets, [&](const ScaleSet& set) {
    const auto book = book_of(set.tags);
    return !book || book->cluster != options_.cluster;
  });
  return sets;
}

Result<SetView> AzureProvider::look(ScaleSet set, int64_t deadline_ns) {
  auto book = book_of(set.tags);
  if (!book || book->cluster != options_.cluster)
    return fail(Code::kAlreadyExists, fmt::format("scale set {} exists and is not ours", set.name));
  Ask ask{"listing the VMs of scale set " + set.name, "GET",
          set_url(set.name, "/virtualMachines") + "&$expand=instanceView"};
  TH_TRY(auto instances, arm_.list(ask, read_instances, deadline_ns));
  sort_instances(instances);
  return SetView{std::move(set), *std::move(book), std::move(instances)};
}

Result<SetView> AzureProvider::view(const std::string& set, int64_t deadline_ns) {
  TH_TRY(const auto answer, arm_.ask({"looking at scale set " + set, "GET", set_url(set)}, deadline_ns));
  TH_TRY(ScaleSet found, read_set(answer.body));
  return look(std::move(found), deadline_ns);
}

Result<SetView> AzureProvider::settled(const std::string& set, int64_t deadline_ns) {
  while (true) {
    TH_TRY(SetView now, view(set, deadline_ns));
    if (now.set.settled()) return now;
    if (!arm_.wait(kLookNs, deadline_ns))
      return fail(Code::kDeadlineExceeded,
                  fmt::format("scale set {} is still {}; ask again", set, now.set.provisioning_state));
  }
}

Result<AzureProvider::Place> AzureProvider::find(std::string_view vm, int64_t deadline_ns) {
  TH_RETURN_IF_ERROR(check_name(vm, "VM"));
  TH_TRY(auto sets, our_sets(deadline_ns));
  const size_t line = vm.rfind('_');
  for (ScaleSet& set : sets) {
    const Book book = *book_of(set.tags);
    const auto found = std::ranges::find(book.vms, vm);
    const auto index = static_cast<size_t>(found - book.vms.begin());
    const bool named = found != book.vms.end() && !(book.instances && (*book.instances)[index] == "-");
    const bool stray = line != vm.npos && set.name == vm.substr(0, line);
    const bool whole = set.name == vm;
    if (!named && !stray && !whole) continue;
    auto now = look(std::move(set), deadline_ns);
    if (!now) return fail(now.error());
    if (named) {
      std::string id = instance_of(*now, index);
      const bool exists = std::ranges::count(now->instances, id, &Instance::id) > 0;
      return Place{*std::move(now), index, exists ? std::move(id) : std::string()};
    }
    if (whole) return Place{*std::move(now), std::nullopt, ""};
    for (const Instance* one : strays(*now)) {
      if (one->id == vm.substr(line + 1)) {
        std::string id = one->id;
        return Place{*std::move(now), std::nullopt, std::move(id)};
      }
    }
  }
  return fail(Code::kNotFound, fmt::format("VM '{}' does not exist", vm));
}

/// Once the VM's instance is known for good, which it is not while the set is being made.
Result<AzureProvider::Place> AzureProvider::find_settled(std::string_view vm, int64_t deadline_ns) {
  TH_TRY(Place place, find(vm, deadline_ns));
  if (place.view.book.instances) return place;
  TH_RETURN_IF_ERROR(with_book(place.view.set.name, deadline_ns));
  return find(vm, deadline_ns);
}

/// The set, with every VM's instance written down.
Result<SetView> AzureProvider::with_book(const std::string& set, int64_t deadline_ns) {
  TH_RETURN_IF_ERROR(settled(set, deadline_ns));
  std::scoped_lock lock(books_);
  TH_TRY(SetView now, view(set, deadline_ns));
  if (now.book.instances) return now;
  now.book = with_instances(now);
  TH_RETURN_IF_ERROR(write(set, now.book, deadline_ns));
  return now;
}

Result<VmState> AzureProvider::state_at(const Place& place, std::string_view vm) const {
  for (VmState& state : states_of(place.view, options_)) {
    if (state.vm == vm) return std::move(state);
  }
  return fail(Code::kNotFound, fmt::format("VM '{}' does not exist", vm));
}

Result<VmState> AzureProvider::describe(std::string_view vm, int64_t timeout_ns) {
  TH_TRY(const Place place, find(vm, deadline(timeout_ns)));
  return state_at(place, vm);
}

Result<std::vector<VmState>> AzureProvider::list(int64_t timeout_ns) {
  const int64_t deadline_ns = deadline(timeout_ns);
  TH_TRY(auto sets, our_sets(deadline_ns));
  std::vector<VmState> states;
  for (ScaleSet& set : sets) {
    const auto now = look(std::move(set), deadline_ns);
    if (!now && now.error().code == Code::kNotFound) continue;  // deleted meanwhile
    if (!now) return fail(now.error());
    for (VmState& state : states_of(*now, options_)) states.push_back(std::move(state));
  }
  std::ranges::sort(states, {}, &VmState::vm);
  return states;
}

Status AzureProvider::deallocate(const std::string& set, const Json& instances, int64_t deadline_ns) {
  return arm_.carry_out(
      {"ending VMs of scale set " + set, "POST", set_url(set, "/deallocate"), dump_json(instances)},
      deadline_ns);
}

Result<VmState> AzureProvider::stop(std::string_view vm, int64_t timeout_ns) {
  const int64_t deadline_ns = deadline(timeout_ns);
  TH_TRY(const Place place, find_settled(vm, deadline_ns));
  TH_TRY(VmState state, state_at(place, vm));
  if (place.instance.empty() || state.ended_ns > 0) return state;
  TH_RETURN_IF_ERROR(
      deallocate(place.view.set.name, {{"instanceIds", Json::array({place.instance})}}, deadline_ns));
  TH_TRY(const SetView now, view(place.view.set.name, deadline_ns));
  TH_TRY(state, state_at({now, place.index, place.instance}, vm));
  if (state.ended_ns == 0)
    return fail(Code::kUnavailable, fmt::format("VM '{}' is not ended yet; try again", vm));
  return state;
}

Status AzureProvider::write(const std::string& set, const Book& book, int64_t deadline_ns) {
  TH_TRY(const auto tags, tags_of(book));
  const Json body = {{"tags", tags}};
  return arm_.carry_out({"writing down the VMs of scale set " + set, "PATCH", set_url(set), dump_json(body)},
                        deadline_ns);
}

/// The VM is no longer listed, and the set goes with its last one.
Status AzureProvider::forget(const std::string& set, std::optional<size_t> index, int64_t deadline_ns) {
  std::scoped_lock lock(books_);
  TH_TRY(SetView now, view(set, deadline_ns));
  if (index) {
    now.book = with_instances(now);
    (*now.book.instances)[*index].assign(1, '-');
  }
  if (is_spent(now))
    return arm_.carry_out({"deleting scale set " + set, "DELETE", set_url(set)}, deadline_ns);
  return index ? write(set, now.book, deadline_ns) : Status();
}

Status AzureProvider::remove(std::string_view vm, int64_t timeout_ns) {
  const int64_t deadline_ns = deadline(timeout_ns);
  const auto place = find_settled(vm, deadline_ns);
  if (!place) return place.error().code == Code::kNotFound ? Status() : fail(place.error());
  TH_TRY(const VmState state, state_at(*place, vm));
  if (state.created_ns > 0 && state.ended_ns == 0)  // also one that came back: its request arrived twice
    return fail(Code::kFailedPrecondition, fmt::format("VM '{}' is billed for; stop() it first", vm));
  const std::string& set = place->view.set.name;
  const bool last = states_of(place->view, options_).size() == 1;
  const std::string url = last ? set_url(set) : set_url(set, "/virtualMachines/" + place->instance);
  Status done;
  if (last || !place->instance.empty())
    done = arm_.carry_out({fmt::format("deleting VM '{}'", vm), "DELETE", url}, deadline_ns);
  if (!done && done.error().code == Code::kNotFound) done = {};
  if (done && !last) done = forget(set, place->index, deadline_ns);
  return !done && done.error().code == Code::kNotFound ? Status() : done;
}

}  // namespace

AzureWorld AzureWorld::real() {
  return {[](const http::Call& call) { return http::fetch(call); }, [] { return Env::real().unix_ns(); },
          [](int64_t ns) { std::this_thread::sleep_for(std::chrono::nanoseconds(ns)); }};
}

Result<std::unique_ptr<Provider>> make_azure_provider(AzureProviderOptions options, AzureWorld world) {
  TH_RETURN_IF_ERROR(check_options(options));
  return std::unique_ptr<Provider>(std::make_unique<AzureProvider>(std::move(options), std::move(world)));
}

}  // namespace th::cloud
