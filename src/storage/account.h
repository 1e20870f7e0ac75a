#pragma once
// Where things are kept in Azure Blob, and with what right: az:// places, the account and its secrets.

#include <string>
#include <string_view>

#include "base/result.h"

namespace th::storage {

/// "az://CONTAINER/PREFIX".
struct Place {
  std::string container;
  std::string prefix;  // "a/b", without '/' at its ends; may be empty

  std::string text() const;
  Place below(std::string_view name) const;
};

/// Containers: 3–63 of a-z, 0-9 and single '-' (learn.microsoft.com, naming containers). Prefix: parts of
/// letters, digits and "-_.", at most 512 characters. Errors: kInvalidArgument.
Result<Place> parse_place(std::string_view text);

/// One of key, sas and identity counts. Holds secrets: never log it, never put it into an error.
struct Account {
  std::string name;
  std::string endpoint;   // "https://NAME.blob.core.windows.net", no '/' at its end
  std::string key;        // the account key's bytes
  std::string sas;        // shared access signature: "sv=…&sig=…"
  bool identity = false;  // a token of Microsoft Entra: the machine's managed identity, or who follows
  std::string tenant, client_id;  // of a service principal; client_id alone: of a user-assigned identity
  std::string client_secret;      // of a service principal; empty: managed identity
  std::string source;             // where the secret was found, for errors: "AZURE_STORAGE_KEY"
  std::string metadata_url = "http://169.254.169.254";
  std::string login_url = "https://login.microsoftonline.com";
};

/// A connection string: "DefaultEndpointsProtocol=…;AccountName=…;AccountKey=…;BlobEndpoint=…" or with
/// SharedAccessSignature (learn.microsoft.com, configure connection strings, read 2026-11-22). `source` names
/// it in errors. Errors: kInvalidArgument; plain http only to this machine.
Result<Account> parse_connection_string(std::string_view text, std::string_view source);

/// The first that is there of: AZURE_STORAGE_CONNECTION_STRING; TH_STORAGE_FILE, a file that holds one and
/// that only its owner may read; AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, a
/// service principal (AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET) or else the machine's managed
/// identity (AZURE_CLIENT_ID: which); the file /etc/thunderhead/storage. Errors: kInvalidArgument,
/// kUnauthenticated (none is there), kPermissionDenied (others may read the file), those of read_file.
Result<Account> account_from_env();

}  // namespace th::storage
