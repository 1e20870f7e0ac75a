#include "storage/account.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "base/base64.h"
#include "base/files.h"
#include "base/text.h"
#include "http/url.h"
#include "storage/digest.h"

namespace th::storage {
namespace {

constexpr const char* kNodeFile = "/etc/thunderhead/storage";
constexpr size_t kMaxFileBytes = 16 << 10;
constexpr size_t kMaxPrefixChars = 512;

tl::unexpected<Error> bad(std::string_view source, std::string_view problem) {
  return fail(Code::kInvalidArgument, fmt::format("{}: {}", source, problem));
}

bool is_letter_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool is_container(std::string_view name) {
  if (name.size() < 3 || name.size() > 63) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const bool dash = name[i] == '-' && i > 0 && i + 1 < name.size() && name[i - 1] != '-';
    if (!is_letter_or_digit(name[i]) && !dash) return false;
  }
  return true;
}

bool is_account_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && std::all_of(name.begin(), name.end(), is_letter_or_digit);
}

std::string env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Status set_key(Account& account, std::string_view base64, std::string_view source) {
  auto key = from_base64(base64);
  if (!key) return bad(source, "the account key is not base64; copy it whole from the storage account");
  account.key = *std::move(key);
  return {};
}

Status set_sas(Account& account, std::string sas, std::string_view source) {
  if (sas.starts_with('?')) sas.erase(0, 1);
  const bool plain = std::all_of(sas.begin(), sas.end(), [](char c) { return c > ' ' && c < 127; });
  if (!plain || sas.find("sig=") == sas.npos || sas.find('#') != sas.npos)
    return bad(source, "is not a shared access signature; want 'sv=…&…&sig=…'");
  account.sas = std::move(sas);
  return {};
}

/// Secrets go there.
Status check_endpoint(Account& account, std::string_view source) {
  while (account.endpoint.ends_with('/')) account.endpoint.pop_back();
  auto url = http::parse_url(account.endpoint);
  const bool good = url && url->target.find('?') == std::string::npos;
  const bool here = good && (url->host == "127.0.0.1" || url->host == "::1" || url->host == "localhost");
  if (!good || (!url->tls && !here))
    return bad(source, "the blob endpoint has to be https://HOST; http only on this machine");
  return {};
}

Result<Account> account_of_file(const std::string& file) {
  TH_TRY(std::string text, read_file(file, kMaxFileBytes));
  struct stat info {};
  if (::stat(file.c_str(), &info) == 0 && (info.st_mode & 077) != 0)
    return fail(Code::kPermissionDenied, file + ": others may read it, and it holds a secret; chmod 600 it");
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.pop_back();
  return parse_connection_string(text, file);
}

Result<Account> account_of_variables(const std::string& name) {
  Account account;
  account.name = name;
  if (!is_account_name(name)) return bad("AZURE_STORAGE_ACCOUNT", "want 3-24 lower-case letters and digits");
  account.endpoint = fmt::format("https://{}.blob.core.windows.net", name);
  if (const std::string key = env("AZURE_STORAGE_KEY"); !key.empty()) {
    account.source = "AZURE_STORAGE_KEY";
    TH_RETURN_IF_ERROR(set_key(account, key, account.source));
  } else if (const std::string sas = env("AZURE_STORAGE_SAS_TOKEN"); !sas.empty()) {
    account.source = "AZURE_STORAGE_SAS_TOKEN";
    TH_RETURN_IF_ERROR(set_sas(account, sas, account.source));
  } else {
    account.identity = true;
    account.client_id = env("AZURE_CLIENT_ID");
    account.client_secret = env("AZURE_CLIENT_SECRET");
    account.tenant = env("AZURE_TENANT_ID");
    if (!account.client_secret.empty() && (account.client_id.empty() || account.tenant.empty()))
      return bad("AZURE_CLIENT_SECRET", "needs AZURE_CLIENT_ID and AZURE_TENANT_ID, too");
    account.source = account.client_secret.empty() ? "the machine's managed identity" : "AZURE_CLIENT_SECRET";
  }
  return account;
}

}  // namespace

std::string Place::text() const { return "az://" + container + (prefix.empty() ? "" : "/") + prefix; }

Place Place::below(std::string_view name) const {
  return {container, prefix + (prefix.empty() ? "" : "/") + std::string(name)};
}

Result<Place> parse_place(std::string_view text) {
  constexpr std::string_view kScheme = "az://";
  const auto wrong = [&](std::string_view problem) {
    return fail(Code::kInvalidArgument,
                fmt::format("'{}': {}; want az://CONTAINER/PREFIX", text.substr(0, 200), problem));
  };
  if (!text.starts_with(kScheme)) return wrong("does not begin with az://");
  std::string rest(text.substr(kScheme.size()));
  while (rest.ends_with('/')) rest.pop_back();
  const size_t slash = rest.find('/');
  Place place{rest.substr(0, slash), slash == rest.npos ? "" : rest.substr(slash + 1)};
  if (!is_container(place.container))
    return wrong("a container is named by 3-63 lower-case letters, digits and single '-'");
  if (place.prefix.size() > kMaxPrefixChars) return wrong("the prefix is over 512 characters");
  if (place.prefix.empty()) return place;
  for (const std::string& part : split(place.prefix, '/')) {
    const bool good = std::all_of(part.begin(), part.end(), [](char c) {
      return is_letter_or_digit(c) || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
    });
    if (part.empty() || !good || part.ends_with('.'))
      return wrong("parts of a prefix have letters, digits and '-_.', and end with no '.'");
  }
  return place;
}

Result<Account> parse_connection_string(std::string_view text, std::string_view source) {
  std::map<std::string, std::string> fields;
  for (const std::string& part : split(text, ';')) {
    if (part.empty()) continue;
    const size_t equals = part.find('=');
    if (equals == part.npos || equals == 0)
      return bad(source, "is not a connection string; want NAME=VALUE;NAME=VALUE;…");
    fields[part.substr(0, equals)] = part.substr(equals + 1);
  }
  Account account;
  account.source = source;
  account.name = fields["AccountName"];
  account.endpoint = fields["BlobEndpoint"];
  if (!account.name.empty() && !is_account_name(account.name))
    return bad(source, "AccountName: want lower-case letters and digits");
  if (account.endpoint.empty() && account.name.empty())
    return bad(source, "has neither AccountName nor BlobEndpoint");
  if (account.endpoint.empty()) {
    const std::string suffix = fields["EndpointSuffix"], protocol = fields["DefaultEndpointsProtocol"];
    account.endpoint = fmt::format("{}://{}.blob.{}", protocol.empty() ? "https" : protocol, account.name,
                                   suffix.empty() ? "core.windows.net" : suffix);
  }
  TH_RETURN_IF_ERROR(check_endpoint(account, source));
  if (!fields["AccountKey"].empty()) {
    if (account.name.empty()) return bad(source, "an AccountKey needs the AccountName");
    TH_RETURN_IF_ERROR(set_key(account, fields["AccountKey"], source));
    return account;
  }
  if (fields["SharedAccessSignature"].empty())
    return bad(source, "has neither AccountKey nor SharedAccessSignature");
  TH_RETURN_IF_ERROR(set_sas(account, fields["SharedAccessSignature"], source));
  return account;
}

Result<Account> account_from_env() {
  if (const std::string text = env("AZURE_STORAGE_CONNECTION_STRING"); !text.empty())
    return parse_connection_string(text, "AZURE_STORAGE_CONNECTION_STRING");
  if (const std::string file = env("TH_STORAGE_FILE"); !file.empty()) return account_of_file(file);
  if (const std::string name = env("AZURE_STORAGE_ACCOUNT"); !name.empty()) return account_of_variables(name);
  if (auto account = account_of_file(kNodeFile); account || account.error().code != Code::kNotFound)
    return account;
  return fail(
      Code::kUnauthenticated,
      fmt::format("no storage account is named: set AZURE_STORAGE_CONNECTION_STRING, or TH_STORAGE_FILE "
                  "to a file that holds one (chmod 600), or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY, "
                  "AZURE_STORAGE_SAS_TOKEN or a managed identity, or put one into {}",
                  kNodeFile));
}

}  // namespace th::storage
