// Routes of invitations and applications: nobody comes in but by an invitation.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "control/access_fields.h"
#include "control/api.h"
#include "control/api_lists.h"
#include "control/api_signin.h"
#include "control/views.h"

namespace th::control {
namespace {

using ledger::Application;
using ledger::Invitation;
using ledger::InvitationMade;
using ledger::Role;

constexpr int64_t kInvitationNs = 7 * kDay, kMaxInvitationNs = 90 * kDay;
constexpr int64_t kMaxApplicationsAMinute = 10;
constexpr size_t kMaxOpenApplications = 1000;
constexpr size_t kMaxContact = 200, kMaxWhy = 2000;

std::string state_of(const Controller& c, const Invitation& invitation) {
  if (!invitation.user.empty()) return "taken";
  if (invitation.revoked) return "revoked";
  return invitation.open_at(c.core.now_ns()) ? "open" : "expired";
}

Json invitation_json(const Controller& c, const Invitation& invitation) {
  const InvitationMade& made = invitation.made;
  return {{"id", made.invitation},
          {"state", state_of(c, invitation)},
          {"tenant", made.tenant},
          {"role", made.role},
          {"name", made.login.empty() ? Json(nullptr) : Json(made.login)},
          {"max_gpus", null_if(made.max_gpus, -1)},
          {"tokens_per_minute", null_if(made.tokens_per_minute, 0)},
          {"by", made.by},
          {"user", invitation.user.empty() ? Json(nullptr) : Json(invitation.user)},
          {"made_ns", invitation.made_ns},
          {"expires_ns", made.expires_ns}};
}

/// A name that nobody signs in with. Errors: kInvalidArgument, kAlreadyExists.
Status check_login(const Controller& c, const std::string& login) {
  TH_RETURN_IF_ERROR(check_name(login, "user"));
  const auto same = [&](const auto& item) {
    return item.second.name == login && item.second.user.empty() && !item.second.revoked;
  };
  if (login != "admin" && !c.access.find_user(login) && std::ranges::none_of(c.core.state().keys, same))
    return {};
  return fail(Code::kAlreadyExists, fmt::format("the name '{}' is not free; choose another", login));
}

/// With its code, which is shown once.
Answer invite(Controller& c, InvitationMade made) {
  const std::string code = c.core.token();
  made.invitation = fmt::format("invitation-{}", c.core.state().next_invitation);
  made.code_sha256 = sha256_hex(code), made.by = c.core.caller().user;
  c.core.stage(made);
  Json answer = invitation_json(c, c.core.state().invitations.at(made.invitation));
  answer["code"] = nullptr, answer["link"] = nullptr;
  const std::string stored = dump_json(answer);
  answer["code"] = code, answer["link"] = "/#invitation=" + code;
  return Answer(answer, stored);
}

Result<InvitationMade> read_invitation(Controller& c, const Json& body) {
  InvitationMade made;
  TH_TRY(made.tenant, read_tenant(c, body, "tenant", c.core.caller().account));
  TH_TRY(const Role role, read_role(c, body, "member"));
  made.role = name_of(role);
  TH_TRY(made.login, get_string(body, "name", std::string()));
  if (!made.login.empty()) TH_RETURN_IF_ERROR(check_login(c, made.login));
  TH_TRY(made.expires_ns, read_expiry(c, body, c.core.now_ns() + kInvitationNs));
  if (made.expires_ns > c.core.now_ns() + kMaxInvitationNs)
    return fail(Code::kInvalidArgument, "field 'expires_ns': an invitation is good for 90 days at most");
  TH_TRY(made.max_gpus, read_amount(body, "max_gpus", -1));
  TH_TRY(made.tokens_per_minute, read_amount(body, "tokens_per_minute", 0));
  return made;
}

/// Where its role is: the tenant, or a project of the user's own where the invitation has a quota of GPUs.
Result<std::string> place_of(Controller& c, const InvitationMade& made, const std::string& login) {
  if (made.max_gpus < 0) return made.tenant;
  ledger::TenantCreated project{(made.tenant.empty() ? "" : made.tenant + "-") + login, made.tenant,
                                "project"};
  project.max_gpus = made.max_gpus;
  TH_RETURN_IF_ERROR(check_name(project.tenant, "project"));
  if (c.core.policy().find_account(project.tenant))
    return fail(Code::kAlreadyExists, fmt::format("the name '{}' is not free; choose another", login));
  c.core.stage(project);
  return project.tenant;
}

Result<Answer> revoke_invitation(Controller& c, const std::string& id) {
  const auto found = c.core.state().invitations.find(id);
  if (found == c.core.state().invitations.end() || !is_within_caller(c, found->second.made.tenant))
    return fail(Code::kNotFound,
                fmt::format("there is no invitation '{}'; th invite --list shows those that are", id));
  if (!found->second.user.empty())
    return fail(Code::kFailedPrecondition, fmt::format("invitation '{}' is taken; remove its user", id));
  if (!found->second.revoked) c.core.stage(ledger::InvitationRevoked{id});
  return Answer(invitation_json(c, found->second));
}

Json application_json(const Application& application) {
  const auto& made = application.made;
  Json out = {{"id", made.application},
              {"state", !application.reviewed            ? "open"
                        : application.reviewed->accepted ? "accepted"
                                                         : "declined"},
              {"name", made.applicant},
              {"contact", made.contact},
              {"tenant", made.tenant},
              {"why", made.why},
              {"made_ns", application.made_ns}};
  if (application.reviewed) {
    out["by"] = application.reviewed->by, out["reason"] = application.reviewed->reason;
    if (application.reviewed->accepted) out["invitation"] = application.reviewed->invitation;
  }
  return out;
}

Status check_open_applications(const Controller& c) {
  size_t open = 0;
  int64_t lately = 0;
  for (const auto& [id, application] : c.core.state().applications) {
    if (!application.reviewed) ++open;
    if (application.made_ns > c.core.now_ns() - kMinute) ++lately;
  }
  if (lately < kMaxApplicationsAMinute && open < kMaxOpenApplications) return {};
  return fail(Code::kResourceExhausted, "too many applications at the moment; try again later");
}

Result<Answer> apply_for(Controller& c, const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {"name", "contact", "tenant", "why"}));
  ledger::ApplicationMade made;
  TH_TRY(made.applicant, get_string(body, "name"));
  TH_RETURN_IF_ERROR(check_name(made.applicant, "user"));
  TH_TRY(made.contact, get_string(body, "contact"));
  TH_TRY(made.why, get_string(body, "why"));
  TH_TRY(made.tenant, get_string(body, "tenant", std::string()));
  if (!made.tenant.empty()) TH_RETURN_IF_ERROR(check_name(made.tenant, "tenant"));
  if (made.contact.empty() || made.contact.size() > kMaxContact)
    return fail(Code::kInvalidArgument, fmt::format("field 'contact': want 1 to {} bytes", kMaxContact));
  if (made.why.empty() || made.why.size() > kMaxWhy)
    return fail(Code::kInvalidArgument, fmt::format("field 'why': want 1 to {} bytes", kMaxWhy));
  TH_RETURN_IF_ERROR(check_open_applications(c));
  made.application = fmt::format("application-{}", c.core.state().next_application);
  c.core.stage(made);
  return Answer(Json{{"id", made.application}, {"state", "open"}});
}

Result<Answer> review(Controller& c, const std::string& id, const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(
      body, {"accept", "role", "tenant", "reason", "name", "expires_ns", "max_gpus", "tokens_per_minute"}));
  const auto found = c.core.state().applications.find(id);
  if (found == c.core.state().applications.end() || !is_within_caller(c, found->second.made.tenant))
    return fail(Code::kNotFound,
                fmt::format("there is no application '{}'; th application list shows them", id));
  if (found->second.reviewed)
    return fail(Code::kFailedPrecondition, fmt::format("application '{}' is reviewed already", id));
  if (!body.contains("accept") || !body["accept"].is_boolean())
    return fail(Code::kInvalidArgument, "field 'accept': want true or false");
  ledger::ApplicationReviewed reviewed{id, c.core.caller().user, "", "", body["accept"].get<bool>()};
  TH_TRY(reviewed.reason, get_string(body, "reason", std::string()));
  Json answer, stored;
  if (reviewed.accepted) {
    Json asked = body;
    if (!asked.contains("tenant") && !found->second.made.tenant.empty())
      asked["tenant"] = found->second.made.tenant;
    TH_TRY(InvitationMade made, read_invitation(c, asked));
    const Answer invited = invite(c, std::move(made));
    TH_TRY(const Json told, parse_json(invited.body, "invitation"));
    TH_TRY(stored, parse_json(*invited.stored, "invitation"));
    reviewed.invitation = told["id"].get<std::string>();
    answer = told;
  }
  c.core.stage(reviewed);
  const Json application = application_json(c.core.state().applications.at(id));
  auto with = [&](const Json& invitation) {
    Json out = application;
    if (reviewed.accepted) out["invitation"] = invitation;
    return out;
  };
  return Answer(with(answer), dump_json(with(stored)));
}

}  // namespace

Result<NewUser> take_invitation(Controller& c, const std::string& code, const std::string& login) {
  const std::string sha256 = sha256_hex(code);
  const auto& all = c.core.state().invitations;
  const auto found = std::ranges::find_if(
      all, [&](const auto& item) { return equal_secret(item.second.made.code_sha256, sha256); });
  if (found == all.end() || !found->second.open_at(c.core.now_ns()))
    return fail(Code::kPermissionDenied,
                "the code is of no invitation, or of one that was taken or has expired; ask for another");
  const InvitationMade made = found->second.made;
  if (!made.login.empty() && made.login != login)
    return fail(Code::kPermissionDenied, fmt::format("the invitation is for '{}'", made.login));
  TH_RETURN_IF_ERROR(check_login(c, login));
  NewUser out;
  TH_TRY(out.tenant, place_of(c, made, login));
  out.user = fmt::format("user-{}", c.core.state().next_user);
  c.core.stage(ledger::UserAdded{out.user, login});
  c.core.stage(ledger::RoleGranted{out.user, out.tenant, made.role});
  c.core.stage(ledger::InvitationTaken{made.invitation, out.user});
  const Role role = *ledger::role_from_name(made.role);
  out.key = c.access.make_key({login,
                               out.tenant,
                               role,
                               {ledger::kScopeApi, ledger::kScopeInference},
                               out.user,
                               "",
                               0,
                               made.tokens_per_minute});
  return out;
}

Result<Answer> answer_invitation(Controller& c, const http::Request& request, const Json& body,
                                 const std::string& password_hash) {
  TH_RETURN_IF_ERROR(check_fields(body, {"code", "name", "password"}));
  TH_TRY(const std::string code, get_string(body, "code"));
  TH_TRY(const std::string login, get_string(body, "name"));
  TH_TRY(const NewUser taken, take_invitation(c, code, login));
  if (!password_hash.empty()) c.core.stage(ledger::PasswordSet{taken.user, password_hash});
  TH_TRY(const Access::Secret session, c.access.sign_in(c.core.state().users.at(taken.user), taken.tenant));
  Answer answer = session_answer(c, session, request.tls);
  Json told = parse_json(answer.body, "session").value_or(Json::object());
  told["key_id"] = taken.key.id;
  told["key"] = nullptr;
  answer.stored = dump_json(told);
  told["key"] = taken.key.secret;
  answer.body = dump_json(told);
  return answer;
}

void Api::add_invitation_routes(http::Router& router) {
  write(router, "POST", "/api/v1/invitations", kAdmin,
        [](Controller& c, const http::Request&, const Json& body) -> Result<Answer> {
          TH_RETURN_IF_ERROR(
              check_fields(body, {"tenant", "role", "name", "expires_ns", "max_gpus", "tokens_per_minute"}));
          TH_TRY(InvitationMade made, read_invitation(c, body));
          return invite(c, std::move(made));
        });
  read(
      router, "/api/v1/invitations",
      [](Controller& c, const http::Request& request) {
        return list_json(request, c.core.state().invitations, [&c](const std::string&, const Invitation& of) {
          return is_within_caller(c, of.made.tenant) ? invitation_json(c, of) : Json();
        });
      },
      kAdmin);
  write(router, "DELETE", "/api/v1/invitations/{id}", kAdmin,
        [](Controller& c, const http::Request& request, const Json&) {
          return revoke_invitation(c, request.params.at("id"));
        });
  add(router, "POST", "/api/v1/applications", kAnyone,
      [this](Controller& c, const http::Request& request, const http::Responder& responder) {
        const int64_t wait = sign_in_.try_open_route(request.peer, c.core.now_ns());
        if (wait > 0) return refuse_for_now(responder, wait);
        run_write(request, responder,
                  [](Controller& c, const http::Request&, const Json& body, const Done& done) {
                    done(apply_for(c, body));
                  });
      });
  read(
      router, "/api/v1/applications",
      [](Controller& c, const http::Request& request) {
        return list_json(request, c.core.state().applications,
                         [&c](const std::string&, const Application& of) {
                           return is_within_caller(c, of.made.tenant) ? application_json(of) : Json();
                         });
      },
      kAdmin);
  write(router, "POST", "/api/v1/applications/{id}/review", kAdmin,
        [](Controller& c, const http::Request& request, const Json& body) {
          return review(c, request.params.at("id"), body);
        });
}

}  // namespace th::control
