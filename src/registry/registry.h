#pragma once
// The registries of models (folders in Hugging Face form) and of data sets (folders of tokens): each folder
// under ROOT/NAME/VERSION with a manifest of checksums.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace th::registry {

struct File {
  std::string name;  // relative to the model's folder
  int64_t bytes = 0;
  std::string sha256;
};
enum class Kind { kModel, kDataSet };

struct Model {  // or a data set
  std::string name, version;
  std::filesystem::path path;
  int64_t bytes = 0;
  std::vector<File> files;
};

/// A folder that th-serve can load: config.json and tokenizer.json are JSON objects, model.safetensors has a
/// whole and consistent header. Symbolic links and folders inside are refused, as are more than 1,000 files.
/// Errors: kInvalidArgument naming the file and what is wrong. Reads headers only.
Status check_model_folder(const std::filesystem::path& folder);

/// A folder that th-train tokenize made: dataset.json is a JSON object, its two token files and its tokenizer
/// are there. As above otherwise.
Status check_data_folder(const std::filesystem::path& folder);

/// Thread: safe from any thread, blocking; one importer of one (name, version) at a time.
class Registry {
 public:
  /// Removes imports that a crash left half done. Errors: of the file system.
  static Result<Registry> open(std::filesystem::path root, Kind kind = Kind::kModel);

  /// Copies `folder` to ROOT/name/version: whole or not at all, also over a crash. Already there with the
  /// same content: success. Errors: as check_model_folder and check_data_folder; kAlreadyExists (other
  /// content), kNoSpace.
  Result<Model> import_folder(const std::filesystem::path& folder, const std::string& name,
                              const std::string& version) const;
  /// From its manifest. Errors: kNotFound, kDataLoss.
  Result<Model> find(const std::string& name, const std::string& version) const;
  /// All of them, by name and version.
  std::vector<Model> list() const;
  /// Reads every byte. Errors: kDataLoss naming the first file that differs from the manifest.
  Status verify(const Model& model) const;

 private:
  Registry(std::filesystem::path root, Kind kind) : root_(std::move(root)), kind_(kind) {}
  const char* word() const { return kind_ == Kind::kModel ? "model" : "data set"; }
  Status check(const std::filesystem::path& folder) const;

  std::filesystem::path root_;
  Kind kind_;
};

}  // namespace th::registry
