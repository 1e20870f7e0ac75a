#pragma once
// Checkpoints that are whole or not there: checkpoints/step-000050/{shard-00000.bin …, manifest.json}. See
// docs/formats.md.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "collective/collective.h"
#include "train/shard_file.h"

namespace th::train {

/// What is kept beside the numbers.
struct CheckpointMeta {
  int64_t step = 0;
  int64_t sequences = 0;  // that were learned from; where the next step goes on in the data
  float first_loss = 0;
  float last_loss = 0;
  std::string fingerprint;  // of model and tokenizer: another model's checkpoint is not used

  bool operator==(const CheckpointMeta&) const = default;
};

/// Writes and reads the checkpoints of one folder, all ranks together. Thread: one owner.
class Checkpoints {
 public:
  /// `folder` is seen by all ranks. `group` and `layout` must outlive it.
  Checkpoints(std::filesystem::path folder, int64_t keep, collective::Group& group,
              const model::ParameterLayout& layout)
      : folder_(std::move(folder)), keep_(keep), group_(group), layout_(layout) {}

  /// Begins to write a checkpoint beside the training: under a temporary name, each rank its `share`. A part
  /// may be changed once wait_part() of its index has returned. One at a time. Fails on all ranks or on none.
  /// Errors: kNoSpace, kPermissionDenied, …, as the failing rank saw it, or kUnavailable elsewhere: older
  /// checkpoints are intact and training may go on; an error of the group breaks it (see `is_group_error`).
  Status begin(const CheckpointMeta& meta, std::vector<StatePart> share, DoneWith done_with = {});
  void wait_part(int index);
  bool is_writing() const { return writer_ != nullptr; }
  int64_t step() const { return meta_.step; }  // of the last begin()
  /// Waits for the files, each synced; then the manifest, last, and the rename; then all but the newest
  /// `keep` are removed. Errors: as begin().
  Status finish();

  /// Loads the newest intact checkpoint of this model, whatever the world size, stage and precision that
  /// wrote it, into the parts of `state`; nothing when there is none. Others are passed over with a warning
  /// that says why. Errors: those of the group; kDataLoss.
  Result<std::optional<CheckpointMeta>> load_newest(const std::string& fingerprint,
                                                    std::span<const StatePart> state,
                                                    const DoneWith& done_with = {});

  /// Whether the last error of `save` came from the group, so that this rank cannot go on.
  bool is_group_error() const { return is_group_error_; }

 private:
  std::filesystem::path path_of(int64_t step) const;
  Status prepare(const std::filesystem::path& temporary);
  Status publish(const std::filesystem::path& temporary, std::span<const float> digests);
  void remove_old();
  Status agree(const Status& mine);
  Result<CheckpointMeta> load(int64_t step, const std::string& fingerprint, std::span<const StatePart> state,
                              const DoneWith& done_with);

  std::filesystem::path folder_;
  int64_t keep_;
  collective::Group& group_;
  const model::ParameterLayout& layout_;
  CheckpointMeta meta_;  // of the one that is being written
  std::unique_ptr<ShardWriter> writer_;
  bool is_group_error_ = false;
};

/// "step-000050" → 50; none: it is no checkpoint's name.
std::optional<int64_t> step_of_name(std::string_view name);

/// Steps of the finished checkpoints in `folder`, newest first; intact or not.
std::vector<int64_t> list_checkpoints(const std::filesystem::path& folder);

}  // namespace th::train
