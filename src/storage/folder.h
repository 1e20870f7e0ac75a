#pragma once
// Whole folders in a store: a reader sees all of one or none of it.
//
//   BASE/DIGEST/FILE …   the files, below a digest of what they are
//   BASE/manifest.json   names, lengths and sha256; put last, so what has no manifest is not there
//
// Two that write different content under one BASE never mix: their files lie apart, and one manifest counts.

#include <optional>
#include <vector>

#include "storage/blobs.h"

namespace th::storage {

inline constexpr const char* kManifestName = "manifest.json";

/// The plain files of `folder` but `without`, by name, each read and digested. Errors: kInvalidArgument (a
/// folder or link inside, a name that cannot be kept), those of reading.
Result<std::vector<FileEntry>> scan_folder(const std::filesystem::path& folder,
                                           std::string_view without = "");

int64_t total_bytes(const std::vector<FileEntry>& files);

enum class IfOther { kRefuse, kReplace };  // other content under the same base

/// Whole or not there; what an attempt before left is used. Errors: kAlreadyExists (kRefuse), those of Blobs.
Status push_folder(Blobs& blobs, const std::string& base, const std::filesystem::path& folder,
                   const std::vector<FileEntry>& files, IfOther if_other);

/// None: it is not there. Errors: kDataLoss, those of Blobs.
Result<std::optional<std::vector<FileEntry>>> find_folder(Blobs& blobs, const std::string& base);

/// Into `folder`, which is made; files that are there and right stay. Errors: those of Blobs::get_file.
Status pull_folder(Blobs& blobs, const std::string& base, const std::vector<FileEntry>& files,
                   const std::filesystem::path& folder);

/// The manifest goes first. `all`: names of blobs, of which those below `base` go.
Status remove_folder(Blobs& blobs, const std::string& base, const std::vector<Blob>& all);

}  // namespace th::storage
