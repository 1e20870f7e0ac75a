// Routes of signing in: by password, passkey and OpenID Connect. By a key: api_access.cc.

#include "control/api_signin.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "access/password.h"
#include "base/text.h"
#include "control/api_lists.h"

namespace th::control {
namespace {

Result<const ledger::User*> user_of_caller(const Controller& c) {
  const auto user = c.core.state().users.find(c.core.who().user);
  if (user != c.core.state().users.end()) return &user->second;
  return fail(Code::kFailedPrecondition,
              "this is the key of nobody in particular; sign in as a user: th invite makes a way in");
}

Result<Json> body_of(const http::Request& request) {
  TH_TRY(Json body, request.body.empty() ? Result<Json>(Json::object()) : parse_json(request.body, "body"));
  if (!body.is_object()) return fail(Code::kInvalidArgument, "body: want a JSON object");
  return body;
}

Json passkey_json(const ledger::Passkey& passkey) {
  return {{"id", passkey.added.passkey},
          {"name", passkey.added.name},
          {"host", passkey.added.host},
          {"added_ns", passkey.added_ns},
          {"last_used_ns", passkey.last_used_ns == 0 ? Json(nullptr) : Json(passkey.last_used_ns)}};
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

/// For a browser that a provider sent back. It goes on from a page of ours, since the cookie of the session
/// is not sent along when another site sends somebody here.
http::Response page(int status, std::string_view title, std::string_view text, bool go_on) {
  return {status,
          {{"Content-Type", "text/html; charset=utf-8"}},
          fmt::format("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
                      "content=\"width=device-width\">{}<title>{}</title><h1>{}</h1><p>{}</p>"
                      "<p><a href=\"/\">Go to the console</a></p></html>\n",
                      go_on ? "<meta http-equiv=\"refresh\" content=\"0; url=/\">" : "", title, title,
                      escaped(text))};
}

std::string outside_cookie(const std::string& value, int64_t max_age_s, bool over_tls) {
  return fmt::format("th_oidc={}; Path=/api/v1/session/oidc; HttpOnly; SameSite=Lax; Max-Age={}{}", value,
                     max_age_s, over_tls ? "; Secure" : "");
}

std::string query_of(const http::Request& request, const char* name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? "" : found->second;
}

struct LetIn {
  Access::Secret session;
  std::string key;  // of a new user, shown once
};

/// The session of the identity, whose subject is linked to the user who takes the invitation with it.
Result<LetIn> let_in(Controller& c, const access::OidcOptions& provider, const access::Identity& identity,
                     const SignIn::Outside& begun) {
  const ledger::State& state = c.core.state();
  LetIn out;
  const auto known = state.credentials.user_of.find({provider.issuer, identity.subject});
  if (known != state.credentials.user_of.end()) {
    TH_TRY(out.session, c.access.sign_in(state.users.at(known->second)));
    return out;
  }
  if (begun.invitation.empty())
    return fail(
        Code::kPermissionDenied,
        fmt::format("{} knows you, but you were not invited here yet: open the link of your invitation "
                    "and choose {} there, or apply for one",
                    provider.name, provider.name));
  const std::string& login = begun.login.empty() ? identity.login : begun.login;
  TH_TRY(const NewUser taken, take_invitation(c, begun.invitation, login));
  c.core.stage(ledger::SubjectLinked{taken.user, provider.issuer, identity.subject});
  out.key = taken.key.secret;
  TH_TRY(out.session, c.access.sign_in(state.users.at(taken.user), taken.tenant));
  return out;
}

}  // namespace

void refuse_for_now(const http::Responder& responder, int64_t wait_ns) {
  const int64_t seconds = (wait_ns + kSecond - 1) / kSecond;
  responder.fail({Code::kResourceExhausted, fmt::format("too many tries; wait {} s", seconds)}, 0,
                 {{"Retry-After", std::to_string(seconds)}});
}

/// Its lambdas hold `this`; the Api that it is of outlives them.
class SignInRoutes {
 public:
  explicit SignInRoutes(Api& api) : api_(api), sign_in_(api.sign_in_) {}
  void add_sessions(http::Router& router);
  void add_passkeys(http::Router& router);

 private:
  template <class Work, class Then>
  void elsewhere(Controller& c, Work work, Then then);
  template <class Handler>
  void run_write(const http::Request& request, const http::Responder& responder, Handler handler) {
    api_.run_write(request, responder,
                   [handler](Controller& c, const http::Request& r, const Json& body, const auto& done) {
                     done(handler(c, r, body));
                   });
  }
  void by_name(Controller& c, const http::Request& request, const http::Responder& responder,
               const Json& body);
  using WithHash =
      std::function<Result<Answer>(Controller&, const http::Request&, const Json& body, const std::string&)>;
  void with_password(Controller& c, const http::Request& request, const http::Responder& responder,
                     const std::function<std::string(const Json& body)>& login_of, WithHash then);
  void change_password(Controller& c, const http::Request& request, const http::Responder& responder);
  void begin_outside(Controller& c, const http::Request& request, const http::Responder& responder);
  void end_outside(Controller& c, const http::Request& request, const http::Responder& responder);

  Api& api_;
  SignIn& sign_in_;
};

/// Runs `work` on another thread, then `then` on the loop as the caller of this moment.
template <class Work, class Then>
void SignInRoutes::elsewhere(Controller& c, Work work, Then then) {
  c.core.offload([this, &c, caller = c.core.who(), work, then]() -> std::function<void()> {
    auto result = std::make_shared<decltype(work())>(work());
    return [this, &c, caller, result, then] {
      c.core.set_caller(caller);
      then(std::move(*result));
      c.core.set_caller({});
    };
  });
}

void SignInRoutes::by_name(Controller& c, const http::Request& request, const http::Responder& responder,
                           const Json& body) {
  const auto read = [&]() -> Result<std::pair<std::string, std::string>> {
    TH_RETURN_IF_ERROR(check_fields(body, {"name", "password"}));
    TH_TRY(const std::string name, get_string(body, "name"));
    TH_TRY(const std::string password, get_string(body, "password"));
    return std::pair(name, password);
  }();
  if (!read) return responder.fail(read.error());
  const auto& [name, password] = *read;
  if (const int64_t wait = sign_in_.try_name(request.peer, name, c.core.now_ns()); wait > 0)
    return refuse_for_now(responder, wait);
  const ledger::User* user = c.access.find_user(name);
  const auto& passwords = c.core.state().credentials.password_of;
  const auto kept = user ? passwords.find(user->id) : passwords.end();
  const std::string hash = kept == passwords.end() ? access::kNobodysHash : kept->second;
  elsewhere(
      c, [password = password, hash] { return access::verify_password(password, hash); },
      [this, &c, request, responder, hash, id = user ? user->id : ""](bool fits) {
        run_write(request, responder, [&](Controller&, const http::Request&, const Json&) -> Result<Answer> {
          // It may have been changed in the meantime.
          const auto now = c.core.state().credentials.password_of.find(id);
          if (!fits || now == c.core.state().credentials.password_of.end() || now->second != hash)
            return fail(Code::kUnauthenticated, "wrong name or password");
          TH_TRY(const Access::Secret session, c.access.sign_in(c.core.state().users.at(id)));
          return session_answer(c, session, request.tls);
        });
      });
}

void SignInRoutes::change_password(Controller& c, const http::Request& request,
                                   const http::Responder& responder) {
  struct Asked {
    std::string user, old, fresh, hash;
  };
  const auto read = [&]() -> Result<Asked> {
    TH_TRY(const ledger::User* user, user_of_caller(c));
    TH_TRY(const Json body, body_of(request));
    TH_RETURN_IF_ERROR(check_fields(body, {"password", "old"}));
    Asked asked{user->id, "", "", ""};
    TH_TRY(asked.fresh, get_string(body, "password"));
    TH_TRY(asked.old, get_string(body, "old", ""));
    TH_RETURN_IF_ERROR(access::check_password(asked.fresh, user->login));
    const auto& passwords = c.core.state().credentials.password_of;
    if (const auto kept = passwords.find(user->id); kept != passwords.end()) asked.hash = kept->second;
    return asked;
  }();
  if (!read) return responder.fail(read.error());
  const std::string login = c.core.state().users.at(read->user).login;
  if (const int64_t wait = sign_in_.try_name(request.peer, login, c.core.now_ns()); wait > 0)
    return refuse_for_now(responder, wait);
  elsewhere(
      c,
      [asked = *read]() -> Result<std::string> {
        if (!asked.hash.empty() && !access::verify_password(asked.old, asked.hash))
          return fail(Code::kUnauthenticated, "field 'old': is not your password of now");
        return access::hash_password(asked.fresh);
      },
      [this, &c, request, responder, user = read->user](Result<std::string> hash) {
        run_write(request, responder, [&](Controller&, const http::Request&, const Json&) -> Result<Answer> {
          if (!hash) return fail(hash.error());
          set_password(c, user, *hash);
          return Answer(Json{{"changed", true}});
        });
      });
}

/// A command of a stranger, with the password of its body hashed elsewhere first, if there is one.
void SignInRoutes::with_password(Controller& c, const http::Request& request,
                                 const http::Responder& responder,
                                 const std::function<std::string(const Json& body)>& login_of,
                                 WithHash then) {
  if (api_.refusal_) return responder.fail(*api_.refusal_);
  if (const int64_t wait = sign_in_.try_open_route(request.peer, c.core.now_ns()); wait > 0)
    return refuse_for_now(responder, wait);
  const auto answer = [this, then = std::move(then)](const http::Request& r, const http::Responder& to,
                                                     const Result<std::string>& hash) {
    run_write(r, to, [&](Controller& c, const http::Request& r, const Json& body) -> Result<Answer> {
      if (!hash) return fail(hash.error());
      return then(c, r, body, *hash);
    });
  };
  const auto body = body_of(request);
  if (!body || !body->contains("password")) return answer(request, responder, std::string());
  const auto password = get_string(*body, "password");
  const Status fit =
      password ? access::check_password(*password, login_of(*body)) : Status(fail(password.error()));
  if (!fit) return responder.fail(fit.error());
  elsewhere(
      c, [password = *password] { return access::hash_password(password); },
      [request, responder, answer](const Result<std::string>& hash) { answer(request, responder, hash); });
}

void SignInRoutes::begin_outside(Controller& c, const http::Request& request,
                                 const http::Responder& responder) {
  if (!sign_in_.options().oidc) return responder.fail({Code::kNotFound, "this controller has no --oidc"});
  if (const int64_t wait = sign_in_.try_open_route(request.peer, c.core.now_ns()); wait > 0)
    return refuse_for_now(responder, wait);
  elsewhere(
      c, [oidc = *sign_in_.options().oidc] { return access::discover(oidc); },
      [this, &c, request, responder](Result<access::OidcProvider> provider) {
        if (!provider)
          return responder.send(page(503, "Signing in does not work now", provider.error().message, false));
        const access::OidcAttempt attempt{c.core.token(), c.core.token(), c.core.token()};
        const std::string browser = c.core.token();
        sign_in_.outside.put(attempt.state,
                             {attempt, *provider, sha256_hex(browser), query_of(request, "invitation"),
                              query_of(request, "name")},
                             c.core.now_ns());
        const std::string to =
            access::authorization_url(*sign_in_.options().oidc, *provider, sign_in_.redirect_url(), attempt);
        responder.send(http::Response{
            302, {{"Location", to}, {"Set-Cookie", outside_cookie(browser, 600, request.tls)}}, ""});
      });
}

void SignInRoutes::end_outside(Controller& c, const http::Request& request,
                               const http::Responder& responder) {
  const auto refuse = [responder](const Error& error) {
    responder.send(page(http::status_of(error.code), "You are not signed in", error.message, false));
  };
  const auto begun = sign_in_.outside.take(query_of(request, "state"), c.core.now_ns());
  const std::string browser = cookie_of(request, "th_oidc").value_or("");
  if (!begun || !equal_secret(sha256_hex(browser), begun->browser_sha256))
    return refuse(
        {Code::kUnauthenticated, "this sign-in was not begun in this browser, or too long ago; begin anew"});
  if (const std::string problem = query_of(request, "error"); !problem.empty())
    return refuse({Code::kUnauthenticated, "the identity provider says: " + problem.substr(0, 200)});
  elsewhere(
      c,
      [oidc = *sign_in_.options().oidc, begun = *begun, to = sign_in_.redirect_url(),
       code = query_of(request, "code"),
       now = c.core.now_ns()] { return access::redeem(oidc, begun.provider, to, begun.attempt, code, now); },
      [this, &c, request, responder, refuse, begun = *begun](Result<access::Identity> identity) {
        if (!identity) return refuse(identity.error());
        if (api_.refusal_) return refuse(*api_.refusal_);
        const int64_t before = c.core.state().seq;
        const auto in = let_in(c, *sign_in_.options().oidc, *identity, begun);
        api_.audit(request, c.core.who(), in ? Status() : fail(in.error()), before);
        if (!in) return refuse(in.error());
        const std::string text =
            in->key.empty() ? "" : "Your key for the command line and the API, shown this once: " + in->key;
        http::Response response = page(200, "You are signed in", text, in->key.empty());
        for (auto& header : session_answer(c, in->session, request.tls).headers)
          response.headers.push_back(std::move(header));
        response.headers.emplace_back("Set-Cookie", outside_cookie("", 0, request.tls));
        c.core.after_commit([responder, response] { responder.send(response); });
      });
}

void SignInRoutes::add_passkeys(http::Router& router) {
  api_.add(router, "POST", "/api/v1/session/passkey/begin", kAnyone,
           [this](Controller& c, const http::Request& request, const http::Responder& responder) {
             if (const int64_t wait = sign_in_.try_open_route(request.peer, c.core.now_ns()); wait > 0)
               return refuse_for_now(responder, wait);
             const auto party = sign_in_.party(request);
             if (!party) return responder.fail(party.error());
             const std::string challenge = access::to_base64url(access::sha256_bytes(c.core.token()));
             sign_in_.challenges.put(challenge, {"", party->id}, c.core.now_ns());
             responder.send(Json{{"challenge", challenge},
                                 {"publicKey", access::request_options(*party, challenge, {})}});
           });
  api_.write(router, "POST", "/api/v1/session/passkey", kAnyone,
             [this](Controller& c, const http::Request& request, const Json& body) -> Result<Answer> {
               TH_RETURN_IF_ERROR(check_fields(body, {"challenge", "credential"}));
               TH_TRY(const std::string challenge, get_string(body, "challenge"));
               if (!body.contains("credential"))
                 return fail(Code::kInvalidArgument, "field 'credential': is missing");
               TH_TRY(const std::string user,
                      use_passkey(c, sign_in_, request, challenge, body["credential"]));
               TH_TRY(const Access::Secret session, c.access.sign_in(c.core.state().users.at(user)));
               return session_answer(c, session, request.tls);
             });
  api_.read(router, "/api/v1/passkeys", [](Controller& c, const http::Request& request) -> Result<Json> {
    TH_TRY(const ledger::User* user, user_of_caller(c));
    return list_json(request, c.core.state().credentials.passkeys,
                     [user](const std::string&, const ledger::Passkey& passkey) {
                       return passkey.added.user == user->id ? passkey_json(passkey) : Json();
                     });
  });
  api_.write(router, "POST", "/api/v1/passkeys/begin", kViewer,
             [this](Controller& c, const http::Request& request, const Json& body) -> Result<Answer> {
               TH_RETURN_IF_ERROR(check_fields(body, {}));
               TH_TRY(const ledger::User* user, user_of_caller(c));
               TH_TRY(const access::RelyingParty party, sign_in_.party(request));
               const std::string challenge = access::to_base64url(access::sha256_bytes(c.core.token()));
               std::vector<std::string> known;
               for (const auto& [id, passkey] : c.core.state().credentials.passkeys) {
                 if (passkey.added.user == user->id) known.push_back(id);
               }
               sign_in_.challenges.put(challenge, {user->id, party.id}, c.core.now_ns());
               return Answer(Json{
                   {"challenge", challenge},
                   {"publicKey", access::creation_options(party, challenge, user->id, user->login, known)}});
             });
  api_.write(router, "POST", "/api/v1/passkeys", kViewer,
             [this](Controller& c, const http::Request& request, const Json& body) -> Result<Answer> {
               TH_RETURN_IF_ERROR(check_fields(body, {"challenge", "credential", "name"}));
               TH_TRY(const ledger::User* user, user_of_caller(c));
               TH_TRY(const ledger::PasskeyAdded added, add_passkey(c, sign_in_, request, user->id, body));
               return Answer(passkey_json(c.core.state().credentials.passkeys.at(added.passkey)));
             });
  api_.write(router, "DELETE", "/api/v1/passkeys/{id}", kViewer,
             [](Controller& c, const http::Request& request, const Json&) -> Result<Answer> {
               TH_TRY(const ledger::User* user, user_of_caller(c));
               const auto& passkeys = c.core.state().credentials.passkeys;
               const auto found = passkeys.find(request.params.at("id"));
               if (found == passkeys.end() || found->second.added.user != user->id)
                 return fail(Code::kNotFound, "you have no such passkey");
               const Json gone = passkey_json(found->second);
               c.core.stage(ledger::PasskeyRemoved{found->first});
               return Answer(gone);
             });
}

void SignInRoutes::add_sessions(http::Router& router) {
  api_.add(router, "GET", "/api/v1/session/methods", kAnyone,
           [this](Controller&, const http::Request& request, const http::Responder& responder) {
             const auto& oidc = sign_in_.options().oidc;
             responder.send(Json{{"password", true},
                                 {"key", true},
                                 {"passkey", sign_in_.party(request).has_value()},
                                 {"oidc", oidc ? Json{{"name", oidc->name}} : Json(nullptr)}});
           });
  api_.add(router, "POST", "/api/v1/session", kAnyone,
           [this](Controller& c, const http::Request& request, const http::Responder& responder) {
             if (api_.refusal_) return responder.fail(*api_.refusal_);
             const auto body = body_of(request);
             if (body && body->contains("name")) return by_name(c, request, responder, *body);
             run_write(request, responder, begin_session);
           });
  api_.add(router, "POST", "/api/v1/invitations/take", kAnyone,
           [this](Controller& c, const http::Request& request, const http::Responder& responder) {
             const auto login = [](const Json& body) { return get_string(body, "name", "").value_or(""); };
             with_password(c, request, responder, login, answer_invitation);
           });
  api_.add(router, "POST", "/api/v1/session/reset", kAnyone,
           [this](Controller& c, const http::Request& request, const http::Responder& responder) {
             const auto login = [&c](const Json& body) {
               const ledger::User* user = user_of_reset(c, get_string(body, "code", "").value_or(""));
               return user ? user->login : std::string();
             };
             with_password(c, request, responder, login, answer_reset);
           });
  api_.add(router, "PUT", "/api/v1/session/password", kViewer,
           [this](Controller& c, const http::Request& request, const http::Responder& responder) {
             api_.refusal_ ? responder.fail(*api_.refusal_) : change_password(c, request, responder);
           });
  api_.add(router, "GET", "/api/v1/session/oidc/start", kAnyone,
           [this](Controller& c, const http::Request& request, const http::Responder& responder) {
             begin_outside(c, request, responder);
           });
  api_.add(router, "GET", "/api/v1/session/oidc/callback", kAnyone,
           [this](Controller& c, const http::Request& request, const http::Responder& responder) {
             end_outside(c, request, responder);
           });
}

void Api::add_sign_in_routes(http::Router& router) {
  sign_in_routes_ = std::make_shared<SignInRoutes>(*this);
  sign_in_routes_->add_sessions(router);
  sign_in_routes_->add_passkeys(router);
}

}  // namespace th::control
