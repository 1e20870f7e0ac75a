#include "control/visible.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/text.h"

namespace th::control {
namespace {

using ledger::Role;

bool sees_all(const Core& core) {
  return core.who().role >= Role::kViewer && core.who().owner.account.empty();
}

bool in_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_'; }

/// Whether this is the id of a job or a slice that exists, and is not the caller's to see.
bool is_hidden(const Core& core, std::string_view word) {
  const ledger::State& state = core.state();
  if (const auto job = state.jobs.find(word); job != state.jobs.end()) return !sees(core, job->second.owner);
  const auto slice = state.slices.find(word);
  return slice != state.slices.end() && !sees(core, slice->second.owner);
}

void replace_all(std::string& text, const std::string& what, std::string_view with) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) {
    const size_t end = at + what.size();
    if (end < text.size() && in_word(text[end])) {
      at = end - with.size();
      continue;
    }
    text.replace(at, what.size(), with);
  }
}

void hide_reservations(const Core& core, std::string& text) {
  constexpr std::string_view kReserved = "what is reserved (", kOthers = "a reservation of others";
  if (text.find("reserv") == std::string::npos) return;
  for (const auto& [name, of] : core.state().reservations) {
    if (sees(core, of)) continue;
    replace_all(text, "reservation '" + name + "'", kOthers);
    replace_all(text, "reservation " + name, kOthers);
  }
  for (size_t at = text.find(kReserved); at != std::string::npos; at = text.find(kReserved, at + 1)) {
    const size_t from = at + kReserved.size(), end = text.find(')', from);
    if (end != std::string::npos) text.replace(from, end - from, "for others");
  }
}

}  // namespace

bool sees(const Core& core, const ledger::Owner& owner) {
  return core.who().role >= Role::kViewer &&
         is_within(core.policy(), account_of(owner), core.who().owner.account);
}

bool sees(const Core& core, const ledger::Vm& vm) {
  const auto slice = core.state().slices.find(vm.slice);
  return slice == core.state().slices.end() ? sees_all(core) : sees(core, slice->second.owner);
}

bool sees(const Core& core, const ledger::Deployment& deployment) {
  const auto job = core.state().jobs.find(deployment.created.job);
  return job == core.state().jobs.end() ? sees_all(core) : sees(core, job->second.owner);
}

bool sees(const Core& core, const ledger::ModelRegistered& model) {
  const auto job = core.state().jobs.find(model.job);
  return job == core.state().jobs.end() || sees(core, job->second.owner);
}

bool sees(const Core& core, const ledger::ReservationCreated& reservation) {
  if (reservation.maintenance || sees_all(core)) return true;
  const Caller& who = core.who();
  auto mine = [&](const std::string& account) {
    return is_within(core.policy(), account, who.owner.account) ||
           is_within(core.policy(), who.owner.account, account);
  };
  return std::ranges::any_of(reservation.accounts, mine) ||
         std::ranges::count(reservation.users, who.owner.user) > 0;
}

const ledger::Slice* find_slice(const Core& core, std::string_view name_or_id) {
  if (sees_all(core)) return core.state().find_slice(name_or_id);
  const auto& slices = core.state().slices;
  if (const auto found = slices.find(name_or_id); found != slices.end())
    return sees(core, found->second.owner) ? &found->second : nullptr;
  const ledger::Slice* last = nullptr;
  for (const auto& [id, slice] : slices) {
    if (slice.terms.name != name_or_id || !sees(core, slice.owner)) continue;
    if (slice.live()) return &slice;
    last = &slice;
  }
  return last;
}

const ledger::Job* find_job(const Core& core, std::string_view id_or_name) {
  if (sees_all(core)) return core.state().find_job(id_or_name);
  const auto& jobs = core.state().jobs;
  if (const auto found = jobs.find(id_or_name); found != jobs.end())
    return sees(core, found->second.owner) ? &found->second : nullptr;
  for (auto job = jobs.rbegin(); job != jobs.rend(); ++job) {
    if (job->second.submitted.name == id_or_name && sees(core, job->second.owner)) return &job->second;
  }
  return nullptr;
}

const ledger::Deployment* find_deployment(const Core& core, const std::string& name) {
  const auto found = core.state().deployments.find(name);
  return found != core.state().deployments.end() && sees(core, found->second) ? &found->second : nullptr;
}

const ledger::ModelRegistered* find_model(const Core& core, const std::string& name) {
  const auto found = core.state().models.find(name);
  if (found == core.state().models.end()) return nullptr;
  for (auto model = found->second.rbegin(); model != found->second.rend(); ++model) {
    if (sees(core, *model)) return &*model;
  }
  return nullptr;
}

std::vector<std::string> accounts_of(const Core& core) {
  std::vector<std::string> out;
  for (const reserve::AccountSpec& account : core.policy().accounts) {
    if (is_within(core.policy(), account.name, core.who().owner.account)) out.push_back(account.name);
  }
  return out;
}

Status check_may_change(const Core& core, const ledger::Owner& owner, const std::string& what) {
  const Caller& who = core.who();
  if (who.role >= Role::kOperator || (who.role == Role::kMember && owner.user == who.owner.user)) return {};
  return fail(
      Code::kPermissionDenied,
      fmt::format("{} is of '{}', and others' things take the role operator of tenant '{}'; you are {}", what,
                  owner.user, account_of(owner), name_of(who.role)));
}

Status check_may_stage(const Core& core, const std::string& path) {
  namespace fs = std::filesystem;
  if (sees_all(core)) return {};
  std::error_code problem;
  const fs::path from = fs::weakly_canonical(path, problem),
                 state = fs::weakly_canonical(core.state_dir(), problem);
  if (problem || !lies_in(from, state)) return {};
  for (const auto& [name, versions] : core.state().models) {
    for (const auto& model : versions) {
      if (sees(core, model) && lies_in(from, model.path)) return {};
    }
  }
  for (const auto& [name, versions] : core.state().data_sets) {
    for (const auto& set : versions) {
      if (lies_in(from, set.path)) return {};
    }
  }
  return fail(
      Code::kPermissionDenied,
      fmt::format("field 'stage': '{}' is the controller's; name a model of yours or a data set", path));
}

std::string redacted(const Core& core, std::string text) {
  if (sees_all(core)) return text;
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && in_word(text[end])) ++end;
    const std::string_view word(text.data() + at, end - at);
    if (word.starts_with("job-") || word.starts_with("slice-")) {
      out +=
          is_hidden(core, word) ? (word[0] == 'j' ? "another's job" : "another's slice") : std::string(word);
    } else {
      out += word;
    }
    if (end < text.size()) out += text[end++];
    at = end;
  }
  hide_reservations(core, out);
  return out;
}

Json redacted(const Core& core, Json answer) {
  if (sees_all(core)) return answer;
  auto out = parse_json(redacted(core, dump_json(answer)), "answer");
  return out ? *std::move(out) : Json::object();
}

Error redacted(const Core& core, Error error) {
  error.message = redacted(core, std::move(error.message));
  return error;
}

}  // namespace th::control
