#include "control/event_scope.h"

#include "control/visible.h"

namespace th::control {
namespace {

using ledger::Role;

struct Scope {
  const Controller& c;
  int64_t seq;

  const ledger::State& state() const { return c.core.state(); }
  bool platform() const { return c.core.who().owner.account.empty(); }
  bool admin_of(const std::string& tenant) const {
    return c.core.who().role == Role::kAdmin &&
           is_within(c.core.policy(), tenant, c.core.who().owner.account);
  }
  bool job(const std::string& id) const {
    const auto found = state().jobs.find(id);
    return found != state().jobs.end() && sees(c.core, found->second.owner);
  }
  bool slice(const std::string& id) const {
    const auto found = state().slices.find(id);
    return found != state().slices.end() && sees(c.core, found->second.owner);
  }
  bool vm(const std::string& id) const {
    const auto found = state().vms.find(id);
    return found != state().vms.end() && sees(c.core, found->second);
  }
  bool key(const std::string& id) const {
    const auto found = state().keys.find(id);
    return found != state().keys.end() && admin_of(found->second.tenant);
  }
  bool invitation(const std::string& id) const {
    const auto found = state().invitations.find(id);
    return found != state().invitations.end() && admin_of(found->second.made.tenant);
  }
  bool application(const std::string& id) const {
    const auto found = state().applications.find(id);
    return found != state().applications.end() && admin_of(found->second.made.tenant);
  }

  bool operator()(const ledger::FleetLoaded&) const { return true; }
  bool operator()(const ledger::PolicyLoaded&) const { return true; }
  bool operator()(const ledger::HostDrained&) const { return true; }
  bool operator()(const ledger::HostResumed&) const { return true; }
  bool operator()(const ledger::PowerCapped&) const { return true; }
  bool operator()(const ledger::PowerUncapped&) const { return true; }
  bool operator()(const ledger::StackAdded&) const { return true; }
  bool operator()(const ledger::DataSetAdded&) const { return true; }
  bool operator()(const ledger::ReservationCreated& e) const { return sees(c.core, e); }
  bool operator()(const ledger::ModelRegistered& e) const { return e.job.empty() || job(e.job); }
  bool operator()(const ledger::DeploymentReady& e) const { return job(c.deployments.job_at(e.name, seq)); }
  bool operator()(const ledger::DeploymentUnready& e) const { return job(c.deployments.job_at(e.name, seq)); }
  bool operator()(const ledger::DeploymentStopped& e) const { return job(c.deployments.job_at(e.name, seq)); }
  bool operator()(const ledger::KeyAdded& e) const { return key(e.id); }
  bool operator()(const ledger::KeyRevoked& e) const { return key(e.id); }
  bool operator()(const ledger::KeyOwned& e) const { return key(e.key); }
  bool operator()(const ledger::KeyGranted& e) const { return key(e.key); }
  bool operator()(const ledger::KeyUsed&) const { return false; }  // told by GET /keys, and too often here
  bool operator()(const ledger::TenantCreated& e) const { return admin_of(e.tenant); }
  bool operator()(const ledger::TenantChanged& e) const { return admin_of(e.tenant); }
  bool operator()(const ledger::TenantRemoved& e) const { return admin_of(e.tenant); }
  bool operator()(const ledger::RoleGranted& e) const { return admin_of(e.tenant); }
  bool operator()(const ledger::InvitationMade& e) const { return invitation(e.invitation); }
  bool operator()(const ledger::InvitationTaken& e) const { return invitation(e.invitation); }
  bool operator()(const ledger::InvitationRevoked& e) const { return invitation(e.invitation); }
  bool operator()(const ledger::ApplicationMade& e) const { return application(e.application); }
  bool operator()(const ledger::ApplicationReviewed& e) const { return application(e.application); }

  /// Of a job, else of a slice, else of a VM; else (users, usage of several tenants) the platform's.
  template <class E>
  bool operator()(const E& e) const {
    if constexpr (requires { e.job; }) {
      return job(e.job);
    } else if constexpr (requires { e.slice; }) {
      return slice(e.slice);
    } else if constexpr (requires { e.vm; }) {
      return vm(e.vm);
    } else {
      return platform() && c.core.who().role == Role::kAdmin;
    }
  }
};

/// What nobody is told.
struct Stripped {
  ledger::Event operator()(ledger::JobSubmitted e) const { return e.spec.clear(), e; }
  ledger::Event operator()(ledger::KeyAdded e) const { return e.sha256.clear(), e; }
  ledger::Event operator()(ledger::PasswordSet e) const { return e.hash.clear(), e; }
  ledger::Event operator()(ledger::PasswordResetMade e) const { return e.code_sha256.clear(), e; }
  ledger::Event operator()(ledger::VmUp e) const { return e.token_sha256.clear(), e; }
  ledger::Event operator()(ledger::InvitationMade e) const { return e.code_sha256.clear(), e; }
  template <class E>
  ledger::Event operator()(const E& e) const {
    return e;
  }
};

}  // namespace

bool sees(const Controller& c, const ledger::Entry& entry) {
  return std::visit(Scope{c, entry.seq}, entry.event);
}

std::string event_data(const Controller& c, const ledger::Entry& entry) {
  const std::string fields = ledger::event_to_json(std::visit(Stripped{}, entry.event));
  const std::string time = "{\"time_ns\":" + std::to_string(entry.time_ns);
  return redacted(c.core, fields == "{}" ? time + "}" : time + "," + fields.substr(1));
}

}  // namespace th::control
