#pragma once
// What the routes of signing in, of sessions and of invitations use of each other. Thread: the loop only.

#include <optional>
#include <string>
#include <string_view>

#include "control/api.h"

namespace th::control {

/// Whose the request is, by bearer, api-key or the cookie of a session: in `caller`, as far as it is known.
/// Errors: kUnauthenticated, kPermissionDenied.
Status identify(Controller& c, const Need& need, const http::Request& request,
                const std::string& gateway_token_sha256, Caller& caller);
/// What the cookie th_session holds.
std::optional<std::string> session_of(const http::Request& request);
/// Errors: kPermissionDenied for a request of a page of another site. For whatever changes something, or
/// opens a socket, with the cookie alone.
Status check_origin(const http::Request& request);
/// The answer to signing in: the session, and its cookie.
Answer session_answer(Controller& c, const Access::Secret& session, bool over_tls);
std::optional<std::string> cookie_of(const http::Request& request, std::string_view name);
/// A session with what the key in `body` may do.
Result<Answer> begin_session(Controller& c, const http::Request& request, const Json& body);
struct NewUser {
  std::string user, tenant;
  Access::Secret key;
};
/// Whoever has the code becomes the user `login`. Errors: kPermissionDenied, kInvalidArgument,
/// kAlreadyExists.
Result<NewUser> take_invitation(Controller& c, const std::string& code, const std::string& login);
/// POST /api/v1/invitations/take; without a hash the user gets no password.
Result<Answer> answer_invitation(Controller& c, const http::Request& request, const Json& body,
                                 const std::string& password_hash);
/// Whose password the code sets; null: it is of nobody, or not good any more.
const ledger::User* user_of_reset(const Controller& c, const std::string& code);
/// POST /api/v1/session/reset; the hash is of the field 'password'.
Result<Answer> answer_reset(Controller& c, const http::Request& request, const Json& body,
                            const std::string& password_hash);
/// 429 with Retry-After.
void refuse_for_now(const http::Responder& responder, int64_t wait_ns);

}  // namespace th::control
