#pragma once
// What the Blob service answers, as plain values. Everything here came over the wire and is checked.
//
// Shapes: Azure/azure-rest-api-specs, Microsoft.BlobStorage/stable/2021-12-02/blob.json, and
// learn.microsoft.com (Blob service REST API: List Blobs, Get Block List, Put Block List, error codes), read
// 2026-11-22.

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::storage {

struct Blob {
  std::string name;  // whole, below the container
  int64_t bytes = 0;
  std::string sha256;  // as the one who put it said, in its metadata; empty in lists
};

struct ListPage {
  std::vector<Blob> blobs;
  std::string next;  // marker of the next page; empty: the last
};
/// Errors: kDataLoss: it is not such a list.
Result<ListPage> read_list(std::string_view xml);

/// Ids, as in the XML, of the blocks that were put and not committed. Errors: kDataLoss.
Result<std::set<std::string>> read_uncommitted(std::string_view xml);

/// "Code" and the first line of "Message" of an error's body; empty where it has none.
struct Fault {
  std::string code, message;
};
Fault read_fault(std::string_view xml);

/// What a refusal means. `what`: what was asked, "reading az://c/x". `source`: where the secret came from.
/// Codes: kUnauthenticated, kPermissionDenied, kNotFound, kAlreadyExists, kFailedPrecondition, kUnavailable
/// (429, 5xx, a digest that did not survive the way: try again), kInvalidArgument, kInternal.
Error error_of_fault(int status, const Fault& fault, std::string_view what, std::string_view source);

/// What a folder in the store holds.
struct FileEntry {
  std::string name;  // of letters, digits and "-_.", at most 255
  int64_t bytes = 0;
  std::string sha256;

  bool operator==(const FileEntry&) const = default;
};
/// Errors: kDataLoss, naming what is wrong.
Result<std::vector<FileEntry>> read_manifest(std::string_view json);
std::string write_manifest(const std::vector<FileEntry>& files);
bool is_file_name(std::string_view name);

}  // namespace th::storage
