#include "access/oidc.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "access/public_key.h"
#include "base/base64.h"
#include "base/config.h"
#include "base/files.h"
#include "http/client.h"
#include "http/tls.h"
#include "http/url.h"

namespace th::access {
namespace {

constexpr int64_t kCallNs = 10 * kSecond;
constexpr size_t kMaxAnswerBytes = size_t{1} << 20, kMaxFileBytes = size_t{1} << 20;

/// Secrets go there.
bool is_safe(const std::string& url) {
  const auto parsed = http::parse_url(url);
  return parsed && (parsed->tls || parsed->host == "localhost" || http::is_loopback(parsed->host));
}

Result<std::string> file_of(const Config& root, const char* key) {
  TH_TRY(const std::string path, root.string(key, ""));
  if (path.empty()) return std::string();
  auto text = read_file(path, kMaxFileBytes);
  if (text) return text;
  return root.bad(key, text.error().message);
}

http::Call call_of(const OidcOptions& options, const std::string& url) {
  http::Call call{.url = url, .headers = {{"Accept", "application/json"}}, .timeout_ns = kCallNs};
  call.max_body_bytes = kMaxAnswerBytes;
  call.authority_pem = options.authority_pem;
  return call;
}

std::string form(std::initializer_list<std::pair<const char*, std::string>> fields) {
  std::string out;
  for (const auto& [name, value] : fields)
    out += fmt::format("{}{}={}", out.empty() ? "" : "&", name, http::percent_encode(value));
  return out;
}

Result<Json> ask(const http::Call& call) {
  auto answer = http::fetch(call);
  if (!answer) return fail(Code::kUnavailable, "the identity provider: " + answer.error().message);
  auto json = parse_json(answer->body, "answer of the identity provider");
  if (answer->status == 200 && json) return json;
  const std::string why = json && json->is_object() ? get_string(*json, "error", "").value_or("") : "";
  const bool is_theirs = answer->status >= 500 || answer->status == 200;
  return fail(is_theirs ? Code::kUnavailable : Code::kUnauthenticated,
              fmt::format("the identity provider answers {} {}{}", call.url.substr(0, call.url.find('?')),
                          answer->status, why.empty() ? "" : ": " + why));
}

}  // namespace

Result<OidcOptions> read_oidc_options(std::string_view text, std::string_view file) {
  TH_TRY(const Config root, Config::parse(text, file,
                                          {"name", "issuer", "client_id", "client_secret_file", "scopes",
                                           "redirect_url", "authority_file"}));
  OidcOptions out;
  TH_TRY(out.issuer, root.string("issuer"));
  TH_TRY(out.client_id, root.string("client_id"));
  TH_TRY(out.client_secret, file_of(root, "client_secret_file"));
  while (!out.client_secret.empty() && std::isspace(static_cast<unsigned char>(out.client_secret.back())))
    out.client_secret.pop_back();
  TH_TRY(out.scopes, root.string("scopes", out.scopes));
  TH_TRY(out.redirect_url, root.string("redirect_url", ""));
  TH_TRY(out.authority_pem, file_of(root, "authority_file"));
  if (!is_safe(out.issuer)) return root.bad("issuer", "want https://…; only this machine may go without");
  const auto url = http::parse_url(out.issuer);
  TH_TRY(out.name, root.string("name", url->host));
  if (!out.redirect_url.empty() && !is_safe(out.redirect_url))
    return root.bad("redirect_url", "want https://…; only this machine may go without");
  if ((" " + out.scopes + " ").find(" openid ") == std::string::npos)
    return root.bad("scopes", "want 'openid' among them");
  return out;
}

Result<OidcProvider> read_provider(const OidcOptions& options, const Json& answer) {
  const auto text = [&](const char* field) {
    return answer.is_object() ? get_string(answer, field, "").value_or("") : "";
  };
  OidcProvider out{text("authorization_endpoint"), text("token_endpoint"), text("jwks_uri")};
  // OpenID Connect Discovery 1.0, section 4.3: the same to the letter.
  if (text("issuer") != options.issuer)
    return fail(Code::kFailedPrecondition,
                fmt::format("issuer '{}' calls itself '{}'; set that in the file of --oidc", options.issuer,
                            text("issuer")));
  for (const std::string& url : {out.authorization_url, out.token_url, out.keys_url}) {
    if (!is_safe(url))
      return fail(Code::kFailedPrecondition,
                  fmt::format("issuer '{}' tells of the address '{}'; want https://", options.issuer, url));
  }
  return out;
}

Result<OidcProvider> discover(const OidcOptions& options) {
  std::string base = options.issuer;
  while (base.ends_with('/')) base.pop_back();
  TH_TRY(const Json answer, ask(call_of(options, base + "/.well-known/openid-configuration")));
  return read_provider(options, answer);
}

std::string authorization_url(const OidcOptions& options, const OidcProvider& provider,
                              const std::string& redirect_url, const OidcAttempt& attempt) {
  const bool has_query = provider.authorization_url.find('?') != std::string::npos;
  return provider.authorization_url + (has_query ? "&" : "?") +
         form({{"response_type", "code"},
               {"client_id", options.client_id},
               {"redirect_uri", redirect_url},
               {"scope", options.scopes},
               {"state", attempt.state},
               {"nonce", attempt.nonce},
               {"code_challenge", to_base64url(sha256_bytes(attempt.verifier))},
               {"code_challenge_method", "S256"}});
}

Result<Identity> redeem(const OidcOptions& options, const OidcProvider& provider,
                        const std::string& redirect_url, const OidcAttempt& attempt, const std::string& code,
                        int64_t now_ns) {
  http::Call call = call_of(options, provider.token_url);
  call.method = "POST";
  call.headers.emplace_back("Content-Type", "application/x-www-form-urlencoded");
  call.body = form({{"grant_type", "authorization_code"},
                    {"code", code},
                    {"redirect_uri", redirect_url},
                    {"client_id", options.client_id},
                    {"code_verifier", attempt.verifier}});
  if (!options.client_secret.empty())  // RFC 6749, section 2.3.1
    call.headers.emplace_back("Authorization",
                              "Basic " + to_base64(http::percent_encode(options.client_id) + ":" +
                                                   http::percent_encode(options.client_secret)));
  TH_TRY(const Json tokens, ask(call));
  auto token = tokens.is_object() ? get_string(tokens, "id_token") : fail(Code::kInternal, "");
  if (!token) return fail(Code::kUnauthenticated, "the identity provider gave no ID token");
  TH_TRY(const Json keys, ask(call_of(options, provider.keys_url)));
  return check_id_token(*token, keys, {options.issuer, options.client_id, attempt.nonce, now_ns});
}

}  // namespace th::access
