#include "storage/answers.h"

#include <expat.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace th::storage {
namespace {

constexpr size_t kMaxDepth = 16;
constexpr size_t kMaxFiles = 100'000;
constexpr int64_t kManifestVersion = 1;

/// Called at the end of each element with its path, "/EnumerationResults/Blobs/Blob/Name", and its own text.
using OnElement = std::function<void(std::string_view path, const std::string& text)>;

struct Walk {
  XML_Parser parser;
  const OnElement& on_element;
  std::string path;
  std::vector<std::string> texts;
};

void on_start(void* user, const XML_Char* name, const XML_Char**) {
  auto& walk = *static_cast<Walk*>(user);
  if (walk.texts.size() >= kMaxDepth) {
    XML_StopParser(walk.parser, XML_FALSE);
    return;
  }
  walk.path.append("/").append(name);
  walk.texts.emplace_back();
}

void on_end(void* user, const XML_Char*) {
  auto& walk = *static_cast<Walk*>(user);
  walk.on_element(walk.path, walk.texts.back());
  walk.texts.pop_back();
  walk.path.resize(walk.path.rfind('/'));
}

void on_text(void* user, const XML_Char* text, int size) {
  auto& walk = *static_cast<Walk*>(user);
  if (!walk.texts.empty()) walk.texts.back().append(text, static_cast<size_t>(size));
}

/// No document type is taken, so nothing expands.
void on_doctype(void* user, const XML_Char*, const XML_Char*, const XML_Char*, int) {
  XML_StopParser(static_cast<Walk*>(user)->parser, XML_FALSE);
}

Status walk_xml(std::string_view xml, const OnElement& on_element) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (xml.starts_with(kByteOrderMark)) xml.remove_prefix(kByteOrderMark.size());
  const std::unique_ptr<XML_ParserStruct, decltype(&XML_ParserFree)> parser(XML_ParserCreate("UTF-8"),
                                                                            &XML_ParserFree);
  TH_CHECK(parser != nullptr);
  Walk walk{parser.get(), on_element, {}, {}};
  XML_SetUserData(parser.get(), &walk);
  XML_SetElementHandler(parser.get(), on_start, on_end);
  XML_SetCharacterDataHandler(parser.get(), on_text);
  XML_SetStartDoctypeDeclHandler(parser.get(), on_doctype);
  if (XML_Parse(parser.get(), xml.data(), static_cast<int>(xml.size()), XML_TRUE) != XML_STATUS_OK)
    return fail(Code::kDataLoss,
                fmt::format("an answer of the Blob service is not the XML it should be, line {}",
                            XML_GetCurrentLineNumber(parser.get())));
  return {};
}

std::string first_line(std::string text) {
  constexpr size_t kMaxChars = 200;
  text.resize(std::min({text.size(), text.find('\n'), kMaxChars}));
  return text;
}

bool is_sha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

Error explain_403(const Fault& fault, std::string_view what, std::string_view source) {
  const bool who = fault.code == "AuthenticationFailed" || fault.code == "InvalidAuthenticationInfo";
  return {
      who ? Code::kUnauthenticated : Code::kPermissionDenied,
      fmt::format(
          "{}: refused with the secret from {} ({}): a wrong or renewed key, a signature that has expired "
          "or lacks a permission (r, c, w, d, l), a clock that is off, or an identity without the role "
          "Storage Blob Data Contributor",
          what, source, fault.code.empty() ? "403" : fault.code)};
}

}  // namespace

Result<ListPage> read_list(std::string_view xml) {
  constexpr std::string_view kBlob = "/EnumerationResults/Blobs/Blob";
  ListPage page;
  Blob blob;
  bool is_list = false, numbers_are_good = true;
  TH_RETURN_IF_ERROR(walk_xml(xml, [&](std::string_view path, const std::string& text) {
    if (path == "/EnumerationResults/NextMarker") page.next = text;
    if (path == "/EnumerationResults") is_list = true;
    if (!path.starts_with(kBlob)) return;
    path.remove_prefix(kBlob.size());
    if (path == "/Name") blob.name = text;
    if (path == "/Properties/Content-Length") {
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), blob.bytes);
      if (error != std::errc() || end != text.data() + text.size() || blob.bytes < 0)
        numbers_are_good = false;
    }
    if (path.empty()) page.blobs.push_back(std::exchange(blob, {}));
  }));
  if (!is_list || !numbers_are_good)
    return fail(Code::kDataLoss, "an answer of the Blob service is not a list of blobs");
  return page;
}

Result<std::set<std::string>> read_uncommitted(std::string_view xml) {
  std::set<std::string> ids;
  TH_RETURN_IF_ERROR(walk_xml(xml, [&](std::string_view path, const std::string& text) {
    if (path == "/BlockList/UncommittedBlocks/Block/Name") ids.insert(text);
  }));
  return ids;
}

Fault read_fault(std::string_view xml) {
  Fault fault;
  // What came before it stopped being XML counts.
  static_cast<void>(walk_xml(xml, [&](std::string_view path, const std::string& text) {
    if (path == "/Error/Code") fault.code = first_line(text);
    if (path == "/Error/Message") fault.message = first_line(text);
  }));
  return fault;
}

Error error_of_fault(int status, const Fault& fault, std::string_view what, std::string_view source) {
  const std::string code = fault.code.empty() ? fmt::format("status {}", status) : fault.code;
  const auto say = [&](Code kind, std::string_view more) {
    return Error{kind, fmt::format("{}: {}{}", what, code, more)};
  };
  if (fault.code == "Md5Mismatch") return say(Code::kUnavailable, ": bytes changed on their way");
  if (status == 401) return say(Code::kUnauthenticated, fmt::format("; look at {}", source));
  if (status == 403) return explain_403(fault, what, source);
  if (fault.code == "ContainerNotFound")
    return say(Code::kNotFound, "; make the container: az storage container create --name NAME");
  if (status == 404) return say(Code::kNotFound, "");
  if (fault.code == "ContainerBeingDeleted" || status == 408 || status == 429 || status >= 500)
    return say(Code::kUnavailable, ": the store is busy or away; try again");
  if (fault.code == "BlobAlreadyExists") return say(Code::kAlreadyExists, "");
  if (fault.code == "InvalidBlockList" || status == 409 || status == 412)
    return say(Code::kFailedPrecondition, fault.message.empty() ? "" : ": " + fault.message);
  if (status >= 400) return say(Code::kInvalidArgument, fault.message.empty() ? "" : ": " + fault.message);
  return say(Code::kInternal, ": an answer that is not expected");
}

bool is_file_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name.starts_with("..") || name.ends_with('.')) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

Result<std::vector<FileEntry>> read_manifest(std::string_view text) {
  const auto damaged = [](std::string_view why) {
    return fail(Code::kDataLoss, fmt::format("the manifest is damaged: {}", why));
  };
  auto json = parse_json(text, "manifest");
  if (!json) return damaged(json.error().message);
  if (get_int(*json, "version", 0).value_or(0) != kManifestVersion)
    return damaged("its version is not known");
  if (!json->contains("files") || !(*json)["files"].is_array()) return damaged("it has no list of files");
  if ((*json)["files"].size() > kMaxFiles) return damaged("it has too many files");
  std::vector<FileEntry> files;
  for (const Json& item : (*json)["files"]) {
    auto name = get_string(item, "name"), sha256 = get_string(item, "sha256");
    auto bytes = get_int(item, "bytes");
    if (!name || !sha256 || !bytes) return damaged("a file of it has no name, bytes or sha256");
    if (!is_file_name(*name) || !is_sha256(*sha256) || *bytes < 0)
      return damaged("a file of it is not possible");
    if (!files.empty() && files.back().name >= *name) return damaged("its files are not in order");
    files.push_back({*name, *bytes, *sha256});
  }
  return files;
}

std::string write_manifest(const std::vector<FileEntry>& files) {
  Json list = Json::array();
  for (const FileEntry& file : files)
    list.push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  return dump_json({{"version", kManifestVersion}, {"files", std::move(list)}}) + "\n";
}

}  // namespace th::storage
